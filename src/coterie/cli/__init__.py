"""The command line: a file a group of verbs; each verb parses, calls and prints.

Libraries are imported inside the verbs: ``--help`` should not wait two seconds for torch.
"""

from coterie.cli.app import app, main

__all__ = ["app", "main"]
