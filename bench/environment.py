"""The environments of the peers: made once, with pip, below `bench/.env`."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from peers import OURS, Peer

ROOT = Path(__file__).resolve().parent.parent


class Environments:
    """Where the interpreters are, and who could not be installed.

    Args:
        folder: where they are made, and found the next time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: dict[str, str] = {}  # peer -> why

    def python(self, peer: Peer) -> Path:
        """The interpreter of a peer."""
        return self.folder / peer.environment / 'bin' / 'python'

    def make(self, peers: Sequence[Peer]) -> None:
        """Make what is not there yet; who cannot be installed is told of, and left out."""
        for peer in peers:
            wanted = [f'--editable={ROOT}[fast]'] if peer.name == OURS else list(peer.requires)
            told = ' '.join(wanted) + ((ROOT / 'pyproject.toml').read_text() if peer.name == OURS else '')
            done = self.folder / peer.environment / f'{peer.name}.installed'
            if done.exists() and done.read_text() == told:
                continue
            if not self.python(peer).exists():
                print(f'making {self.folder / peer.environment} ...', flush=True)
                venv.create(self.folder / peer.environment, with_pip=True)
            print(f'installing {peer.name} ...', flush=True)
            why = self._install(peer, wanted)
            if why:
                self.missing[peer.name] = why
                print(f'{peer.name} is left out, it cannot be installed: {why}', file=sys.stderr, flush=True)
            else:
                done.write_text(told)

    def _install(self, peer: Peer, wanted: Sequence[str]) -> str:
        pip = [str(self.python(peer)), '-m', 'pip', 'install', '-q', '--disable-pip-version-check']
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        lines = [line for line in done.stderr.splitlines() if line.startswith('ERROR')] or ['pip failed']
        return lines[-1] if done.returncode else ''

    def versions(self) -> dict[str, str]:
        """What is installed, as `name` -> version; of the environment of webshoes 1.0 as `webshoes1/name`."""
        found = {}
        for name, prefix in (('peers', ''), ('webshoes1', 'webshoes1/')):
            python = self.folder / name / 'bin' / 'python'
            if python.exists():
                command = [str(python), '-m', 'pip', 'list', '--format', 'json', '--disable-pip-version-check']
                listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found.update({prefix + row['name']: row['version'] for row in json.loads(listed)})
        return found
