"""From records to numbers and charts, for anybody's study."""
