"""Plays a file of attacks and honest messages against a running gateway, and judges what came of each."""
