"""The command line, failure handling and what is known of launchers."""
