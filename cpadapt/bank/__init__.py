"""Many runs on one frozen backbone, trained at once. Nothing here is promised to stay as it is."""
