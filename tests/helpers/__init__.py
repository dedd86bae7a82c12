"""Code that several test files share: servers, tables, programs and checks."""
