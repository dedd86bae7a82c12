"""What stands between a program and the engines: seams, pipelines, and the handles they keep."""
