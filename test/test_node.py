"""webshoes.js in Node.js, with its own WebSocket and with that of the package `ws`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

import webshoes as ws

from .conftest import TIMEOUT, Serve

CLIENT = (Path(__file__).resolve().parent.parent / 'webshoes' / 'web' / 'webshoes.mjs').as_uri()

# Node 22 has a WebSocket; older ones need one.
RUNTIMES = {
    'own': '',
    'ws': "import { createRequire } from 'node:module'; globalThis.WebSocket = createRequire(import.meta.url)('ws');",
}
SCRIPT = """
  import WebShoes from '%s';
  const told = [];
  const settings = { cb: (type, data) => told.push([type, data]), minDelay: 1, maxDelay: 10 };
  const until = async isSo => { while (!isSo()) await new Promise(step => setTimeout(step, 5)); };
  const say = value => console.log(JSON.stringify(value));
"""

runtime = pytest.mark.parametrize('runtime', RUNTIMES)


@pytest.fixture
def node() -> str:
    """Return the program. Without it the tests are left out with this reason."""
    found = os.environ.get('WEBSHOES_NODE')
    if found is None:
        pytest.skip('no Node.js 22: python3 test/check.py brings it, and names it in WEBSHOES_NODE')
    return found


def start(node: str, runtime: str, code: str) -> subprocess.Popen[str]:
    """Run a module in Node.js."""
    module = RUNTIMES[runtime] + SCRIPT % CLIENT + code
    command = [node, '--input-type=module', '--eval', module]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding='utf-8')


def run(node: str, runtime: str, code: str) -> tuple[int, list[Any], str]:
    """The code that a module in Node.js ends with, what it says, and its errors."""
    process = start(node, runtime, code)
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


@runtime
def test_calls_and_events(serve: Serve, node: str, runtime: str) -> None:
    """It calls, follows an event, and ends when it is closed."""
    wsa = serve({'add': lambda ctx, q: q.a + q.b})
    wsa.triggerEvent('e', 'value')
    code = f"""
      const wsc = WebShoes({{ url: '{wsa.url}' }});
      wsc.onEvent('e', async data => {{
        say([data.r, await wsc.call('cmd/add', {{ a: 3, b: 4 }})]);
        wsc.close();
      }});
    """
    assert run(node, runtime, code) == (0, [['value', 7]], '')


@runtime
def test_refused_connections(node: str, runtime: str, free_port: int) -> None:
    """A connection that is refused is an attempt that failed at once, and does not end the process."""
    code = f"""
      const wsc = WebShoes({{ url: 'ws://127.0.0.1:{free_port}', ...settings, deadAfter: 1e6 }});
      const call = wsc.call('cmd/add').catch(error => say(error.code));
      await until(() => told.filter(([type]) => type === 'close').length > 5);
      say(told.map(([type, data]) => [type, data.code]));
      wsc.close();
      await call;
    """
    code_, said, err = run(node, runtime, code)
    assert (code_, err) == (0, '')
    assert said[0][:6] == [['close', 1006]] * 6
    assert said[1] == 503


@runtime
def test_server_that_comes_later(serve: Serve, node: str, runtime: str, free_port: int) -> None:
    """A client that was there first is connected once its server is, and after it was stopped and started again."""
    code = f"""
      const wsc = WebShoes({{ url: 'ws://127.0.0.1:{free_port}', ...settings, deadAfter: 1e6 }});
      await until(() => told.some(([type]) => type === 'close'));
      for (const number of [1, 2]) {{
        say('ready');
        say(await wsc.call('cmd/add', {{ a: number }}, {{ retry: true }}));
        await until(() => wsc.state !== 'open');
      }}
      wsc.close();
    """
    process = start(node, runtime, code)
    assert process.stdout is not None
    for number in (1, 2):
        assert json.loads(process.stdout.readline()) == 'ready'
        with ws.WebShoesApp('127.0.0.1', free_port) as wsa:
            wsa.command('cmd/add')(lambda ctx, q: q.a)
            assert json.loads(process.stdout.readline()) == number
    assert process.communicate(timeout=TIMEOUT) == ('', '')
    assert process.returncode == 0


@runtime
def test_connection_that_stays_unanswered(node: str, runtime: str) -> None:
    """An attempt that nobody answers is given up after `deadAfter`, and does not end the process."""
    with socket.create_server(('127.0.0.1', 0)) as silent:
        code = f"""
          const url = 'ws://127.0.0.1:{silent.getsockname()[1]}';
          const wsc = WebShoes({{ url, ...settings, deadAfter: 50 }});
          await until(() => told.filter(([type]) => type === 'close').length > 2);
          say(told.map(([type, data]) => data.reason).slice(0, 2));
          wsc.close();
        """
        assert run(node, runtime, code) == (0, [['not open after 50 ms'] * 2], '')


@runtime
def test_callback_that_fails(serve: Serve, node: str, runtime: str) -> None:
    """An error in a callback is reported, and disturbs nothing."""
    wsa = serve()
    wsa.triggerEvent('e', 1)
    code = f"""
      const wsc = WebShoes({{ url: '{wsa.url}', cb: () => {{ throw new Error('in cb') }} }});
      wsc.onEvent('e', () => {{ throw new Error('in callback') }});
      wsc.onEvent('e', data => say(data.r));
      await wsc.msg({{ cmd: 'x' }}, () => {{ throw new Error('in reply') }}).catch(error => say(error.code));
      wsc.close();
    """
    code_, said, err = run(node, runtime, code)
    assert (code_, sorted(said)) == (0, [1, 404])
    assert all(f'Error: in {place}' in err for place in ('cb', 'callback', 'reply'))


@pytest.mark.parametrize('settings', ['', "{ url: '/' }", "{ url: 'ftp://host' }", "{ url: 'nonsense' }"])
def test_no_address(node: str, settings: str) -> None:
    """Without a page, the server has to be named."""
    code = f'try {{ WebShoes({settings}) }} catch (error) {{ say([error.name, error.message]) }}'
    _, [[name, message]], _ = run(node, 'own', code)
    assert name == 'TypeError'
    assert "give { url: 'ws://host:port' }" in message
