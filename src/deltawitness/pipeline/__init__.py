"""Write pipelines: one request in, one streamed write out, with or without observation.

A `WriteRequest` (`request`) is validated first; `pipeline` executes it as a Delta write or, through
`file_writer`, as a directory of files; `observed` adds plan, schema and policy to each write.
"""
