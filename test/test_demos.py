"""The demos do what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def test_basic_prints_what_the_readme_says() -> None:
    """demo/basic/basic.py prints the block of the README, a time for each `...`, and ends."""
    readme = (HERE / 'README.md').read_text()
    expected = readme[readme.index('--- HTTP ---') : readme.index('\n```', readme.index('--- HTTP ---'))]
    pattern = re.escape(expected).replace(r'\.\.\.', r'\d+\.\d+')
    demo = [sys.executable, str(HERE / 'demo/basic/basic.py')]
    printed = subprocess.run(demo, capture_output=True, text=True, check=True, timeout=60, encoding='utf-8')
    assert re.fullmatch(pattern, printed.stdout.strip())
    assert printed.stderr == ''
