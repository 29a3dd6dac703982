"""Media types of files by the ending of their name: one table, the same on all machines."""

from __future__ import annotations

UNKNOWN = 'application/octet-stream'

# As IANA lists them, where it does: https://www.iana.org/assignments/media-types
TYPES = {
    ending: media_type
    for media_type, endings in {
        'application/epub+zip': 'epub',
        'application/geo+json': 'geojson',
        'application/gzip': 'gz tgz',
        'application/json': 'json map',
        'application/json5': 'json5',
        'application/ld+json': 'jsonld',
        'application/manifest+json': 'webmanifest',
        'application/msword': 'doc dot',
        'application/octet-stream': 'bin',
        'application/ogg': 'ogx',
        'application/pdf': 'pdf',
        'application/postscript': 'ps eps ai',
        'application/rtf': 'rtf',
        'application/sql': 'sql',
        'application/toml': 'toml',
        'application/vnd.android.package-archive': 'apk',
        'application/vnd.apache.parquet': 'parquet',
        'application/vnd.apple.mpegurl': 'm3u8',
        'application/vnd.ms-excel': 'xls',
        'application/vnd.ms-fontobject': 'eot',
        'application/vnd.ms-powerpoint': 'ppt',
        'application/vnd.oasis.opendocument.presentation': 'odp',
        'application/vnd.oasis.opendocument.spreadsheet': 'ods',
        'application/vnd.oasis.opendocument.text': 'odt',
        'application/vnd.openxmlformats-officedocument.presentationml.presentation': 'pptx',
        'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet': 'xlsx',
        'application/vnd.openxmlformats-officedocument.wordprocessingml.document': 'docx',
        'application/vnd.rar': 'rar',
        'application/vnd.sqlite3': 'sqlite sqlite3',
        'application/wasm': 'wasm',
        'application/x-7z-compressed': '7z',
        'application/x-brotli': 'br',
        'application/x-bzip2': 'bz2',
        'application/x-ipynb+json': 'ipynb',
        'application/x-ndjson': 'ndjson jsonl',
        'application/x-sh': 'sh',
        'application/x-tar': 'tar',
        'application/x-xz': 'xz',
        'application/xhtml+xml': 'xhtml xht',
        'application/xml': 'xml xsl xsd',
        'application/yaml': 'yaml yml',
        'application/zip': 'zip whl',
        'application/zstd': 'zst',
        'audio/aac': 'aac',
        'audio/flac': 'flac',
        'audio/matroska': 'mka',
        'audio/midi': 'mid midi',
        'audio/mp4': 'm4a',
        'audio/mpeg': 'mp3',
        'audio/ogg': 'ogg oga opus spx',
        'audio/wav': 'wav',
        'audio/webm': 'weba',
        'font/collection': 'ttc',
        'font/otf': 'otf',
        'font/ttf': 'ttf',
        'font/woff': 'woff',
        'font/woff2': 'woff2',
        'image/apng': 'apng',
        'image/avif': 'avif',
        'image/bmp': 'bmp dib',
        'image/gif': 'gif',
        'image/heic': 'heic',
        'image/heif': 'heif',
        'image/jpeg': 'jpg jpeg jpe jfif',
        'image/jxl': 'jxl',
        'image/png': 'png',
        'image/svg+xml': 'svg',
        'image/tiff': 'tif tiff',
        'image/vnd.microsoft.icon': 'ico',
        'image/webp': 'webp',
        'message/rfc822': 'eml',
        'model/gltf+json': 'gltf',
        'model/gltf-binary': 'glb',
        'model/mtl': 'mtl',
        'model/obj': 'obj',
        'model/stl': 'stl',
        'model/vnd.usdz+zip': 'usdz',
        'text/calendar': 'ics',
        'text/css': 'css',
        'text/csv': 'csv',
        'text/html': 'html htm',
        'text/javascript': 'js mjs cjs',
        'text/markdown': 'md markdown',
        'text/plain': 'txt text log ini cfg conf py pyi c h diff patch srt',
        'text/tab-separated-values': 'tsv',
        'text/vcard': 'vcf',
        'text/vtt': 'vtt',
        'text/x-rst': 'rst',
        'video/matroska': 'mkv',
        'video/mp2t': 'ts',
        'video/mp4': 'mp4 m4v',
        'video/mpeg': 'mpeg mpg',
        'video/ogg': 'ogv',
        'video/quicktime': 'mov qt',
        'video/webm': 'webm',
        'video/x-msvideo': 'avi',
    }.items()
    for ending in endings.split()
}


def content_type(name: str) -> str:
    """Return the `Content-Type` of a file by the last ending of its name. Texts are UTF-8.

    Only the last ending counts: `a.json.gz` is `application/gzip`, as its bytes are.
    """
    stem, _, ending = name.rpartition('.')
    media_type = TYPES.get(ending.lower(), UNKNOWN) if stem.strip('.') else UNKNOWN
    return f'{media_type}; charset=utf-8' if media_type.startswith('text/') else media_type
