"""Many runs on one frozen backbone, trained at once. Nothing here is stable API."""
