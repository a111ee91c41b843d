"""A gateway's commands in the test's own process: to start one takes a third of a second of CPU time."""

import os
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from subprocess import CompletedProcess
from unittest.mock import patch

from gateway.bench.process import GatewayProcess
from gateway.cli.main import build_parser
from gateway.ipsec.errors import GatewayError

_parser = cache(build_parser)


class Gateway(GatewayProcess):
    """A gateway whose commands are cheap; what a terminal shows is for tests of the command line."""

    _before: int = 0
    """Of the log: where what is asked for begins."""

    @property
    def is_started(self) -> bool:
        """Whether it was started, and neither stopped nor killed as a whole."""
        return self._process is not None

    def log(self) -> str:
        """Return the log since `begin_log`, or all of it."""
        return super().log()[self._before :]

    def begin_log(self) -> None:
        """Have the log begin here."""
        self._before += len(self.log())

    def configure(self, config: str) -> None:
        """Take these connections and no others."""
        self.config = config
        self.config_path.write_text(config)
        self.ctl("apply", "--prune", str(self.config_path))

    def _command(self, arguments: Sequence[str], timeout_s: float) -> "CompletedProcess[str]":
        """Do what `ipsecgw` does, but for its settings of logs, which are of the whole process.

        Commands that are used here have deadlines of their own, of a minute at most.
        """
        printed, told = StringIO(), StringIO()
        with patch.dict(os.environ, self._services()), redirect_stdout(printed), redirect_stderr(told):
            try:
                args = _parser(arguments[0]).parse_args(arguments)
                status = args.act(args)
            except SystemExit as ended:  # of the parser
                status = int(ended.code or 0)
            except GatewayError as error:
                print(f"ipsecgw {arguments[0]}: {error}", file=told)
                status = 1
        return CompletedProcess(list(arguments), status, printed.getvalue(), told.getvalue())
