"""aiohttp with one part of its inside altered: whether webshoes still does all that it promises.

    python -m test.altered                    # names all alterations
    python -m test.altered 'name of one'      # alters the source of aiohttp as it is imported, and uses everything

Each alteration leaves aiohttp whole: a private name is another one wherever it stands, or a call takes one argument
more, as a later version might have it.
"""

# ruff: noqa: E501  # the patterns in the table are long
from __future__ import annotations

import importlib
import importlib.machinery
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple


class Edit(NamedTuple):
    """A change to the modules of aiohttp whose name ends so: a pattern, and what comes in its place."""

    module: str
    pattern: str
    replacement: str


class Alteration(NamedTuple):
    """Edits of aiohttp's source, the names of the reliances that do not work then, and names that a module has lost."""

    edits: list[Edit]
    lost: set[str]
    gone: tuple[str, ...] = ()


def rename(name: str) -> list[Edit]:
    """Another name for something, wherever it stands."""
    return [Edit('', rf'\b{name}\b', f'{name}_as_it_was')]


HTTP, WEBSOCKET, REQUESTS, RELEASE = 'http lane', 'websocket lane', 'requests', 'release'

ALTERATIONS: dict[str, Alteration] = {
    'nothing': Alteration([], set()),
    'the parser of a connection': Alteration(rename('_parser'), {HTTP, RELEASE}),
    'the waiter of a connection': Alteration(rename('_waiter'), {HTTP}),
    'the queue of requests': Alteration(rename('_messages'), {HTTP, RELEASE}),
    'the count of requests': Alteration(rename('_request_count'), {HTTP}),
    'the end of a connection without requests': Alteration(rename('_next_keepalive_close_time'), {HTTP}),
    'the mark of an upgrade': Alteration(rename('_upgraded'), {HTTP, RELEASE}),
    'the bytes behind a handshake': Alteration(rename('_message_tail'), set()),
    'the loop of everything': Alteration(rename('_loop'), {WEBSOCKET}),
    'the settings of a server': Alteration(rename('_kwargs'), set()),
    'the reader of a WebSocket': Alteration(rename('_reader'), {WEBSOCKET}),
    'the connection of a queue': Alteration(rename('_protocol'), {WEBSOCKET}),
    'the limit of a queue': Alteration(rename('_limit'), {WEBSOCKET}),
    'the size of a queue': Alteration(rename('_size'), {WEBSOCKET}),
    'the class of a queue': Alteration(rename('WebSocketDataQueue'), {WEBSOCKET}),
    'the message that is served': Alteration(rename('message_consumed'), {HTTP}),
    'the bytes of a body': Alteration(rename('total_bytes'), {HTTP}),
    'whether writing is paused': Alteration(rename('writing_paused'), {HTTP}),
    'the patience of a connection': Alteration([Edit('web_protocol', 'def keepalive_timeout', 'def patience')], set()),
    'what reads frames': Alteration(rename('set_parser'), {RELEASE}),
    'the answer to what is no request': Alteration(rename('handle_error'), set()),
    'the end of idle connections': Alteration(rename('pre_shutdown'), set()),
    'the charset of parts': Alteration(rename('part_reader_cls'), set()),
    'the limit of fields': Alteration(rename('client_max_fields'), set()),
    'the writer of an answer': Alteration([], {REQUESTS}, ('aiohttp.http', 'StreamWriter')),
    'the errors of a parser': Alteration([], set(), ('aiohttp.http', 'HttpProcessingError')),
    'the head of an answer': Alteration(rename('write_headers'), {REQUESTS}),
    'a body that is empty': Alteration([Edit('http_parser', 'payload = EMPTY_PAYLOAD', 'payload = type(EMPTY_PAYLOAD)()')], {HTTP}),
    'the mark of an answer that is raised': Alteration(rename('__http_exception__'), set()),
    'a line that is too long': Alteration(rename('LineTooLong'), set()),
    'six arguments for a request': Alteration(
        [
            Edit('web_protocol', r'(self\._task_handler or asyncio\.current_task\(loop\),.*)', r'\1\n None,'),
            Edit('web_server', r'(task: "asyncio\.Task\[None\]",)', r'\1 error: object,'),
        ],
        {REQUESTS},
    ),
    'a parser by another name': Alteration(
        [
            Edit('web_protocol', r'self\._parser\.feed_data\(', 'self._parser.feed('),
            Edit('http_parser', r'( +)def message_consumed', r'\1def feed(self, data): return self.feed_data(data)\n\1def message_consumed'),
        ],
        {HTTP},
    ),
    'the size of a message in the message': Alteration(
        [
            Edit('web_ws', r'reader\.feed_data\(WS_CLOSING_MESSAGE, 0\)', 'reader.feed_data(WS_CLOSING_MESSAGE)'),
            Edit('reader_py', r'self, data: "WSMessage \| WSMessageTextBytes", size: "cython_int"', 'self, data, size=0'),
            Edit('reader_py', r'self\.queue\.feed_data\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)', r'self.queue.feed_data((lambda m, s: m)(\1))'),
        ],
        {WEBSOCKET},
    ),
    'the fields of a message in another order': Alteration(
        [
            Edit('models', r'(?s)(class WSMessageTextBytes.*?\n)    type: WSMsgType\n(.*?    data: Any\n)', r'\1\2    type: WSMsgType\n'),
            Edit('reader_py', r'\(WS_MSG_TYPE_TEXT, payload_merged, ""\)', '(payload_merged, WS_MSG_TYPE_TEXT, "")'),
        ],
        {WEBSOCKET},
    ),
}  # fmt: skip


class Altering(importlib.machinery.SourceFileLoader):
    """Imports a module from its source, edited.

    Args:
        edits: of all modules; each that concerns a module by its name must be met there.
    """

    edits: Sequence[Edit] = ()

    def get_code(self, fullname: str) -> Any:
        """Compile the edited source; what was compiled before is not looked at."""
        source = self.get_data(self.get_filename(fullname)).decode()
        for module, pattern, replacement in self.edits:
            if fullname.endswith(module):
                source, count = re.subn(pattern, replacement, source)
                assert count or not module, f'{module} has no {pattern}'
        return compile(source, self.get_filename(fullname), 'exec')


class Finder:
    """Finds the modules of aiohttp, to be edited."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        """Find a module."""
        if name.partition('.')[0] != 'aiohttp':
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None and spec.origin.endswith('.py'):
            spec.loader = Altering(name, spec.origin)
        return spec


def main() -> None:
    """Alter aiohttp, and use every transport."""
    if len(sys.argv) == 1:
        print(*ALTERATIONS, sep='\n')
        return
    alteration = ALTERATIONS[sys.argv[1]]
    os.environ['AIOHTTP_NO_EXTENSIONS'] = '1'  # what is compiled cannot be altered
    Altering.edits = alteration.edits
    sys.meta_path.insert(0, Finder)
    importlib.import_module('aiohttp.web')  # before names are gone that it uses itself
    if alteration.gone:
        module, name = alteration.gone
        delattr(sys.modules[module], name)
    from test import everything

    everything.main()


if __name__ == '__main__':
    main()
