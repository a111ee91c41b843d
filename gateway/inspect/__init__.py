"""Looking into captures: finds IKE messages and ESP packets, and opens them where keys are given."""
