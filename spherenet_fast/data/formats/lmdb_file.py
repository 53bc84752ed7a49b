"""The pages of an LMDB file, read and never mapped.

The library lmdb maps a file and believes what its pages say: in a truncated file, or with one wrong bit in a page, it
ends the process with SIGBUS. Here every place is compared with the file first. The layout is LMDB 0.9's on
little-endian machines of 64 bits: two meta pages, of which the one of the later transaction counts, a tree of branch
and leaf pages, and overflow pages for long values.
"""

import os
import struct

_META = struct.Struct("<10xH4xII16xI48xH26xQQQQ")  # see LmdbFile._meta
_PAGE = struct.Struct("<Q2xHHH")  # number, flags, end of the nodes' offsets, begin of the nodes
_NODE = struct.Struct("<HHHH")  # low and high half of a value's size or of a page's number, flags, size of the key
_NUMBER = struct.Struct("<Q")
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_IN_MEMORY = 0xC010  # flags of a page that mean something to the writer alone
_LONG_VALUE = 1  # flag of a node: its value is the number of the overflow page with the value
_DUPLICATES = 4  # flag of a database: several values for a key
_NO_PAGE = 2**64 - 1


class LmdbFile:
    """The main database of an LMDB file. Keys are read at once, a value when it is asked for.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is truncated, damaged, or no LMDB of this kind; `get`, too, raises it.
    """

    def __init__(self, path):
        self._path = path
        self._file = open(path, "rb", buffering=0)
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._page_size, entries, root, self._last_page = self._meta()
            self._places: dict[bytes, tuple[int, int, bool]] = {}  # key -> offset and size, and whether it is a page's
            if root != _NO_PAGE:
                self._walk(root)
            if len(self._places) != entries:
                raise self._error(f"damaged: its header states {entries} entries, its pages have {len(self._places)}")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "LmdbFile":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        if key not in self._places:
            return None
        offset, size, on_pages = self._places[key]
        if not on_pages:
            return self._read(offset, size)
        content = self._read(offset, _PAGE.size + size)
        self._check_page(content, offset // self._page_size, _OVERFLOW)
        return content[_PAGE.size :]

    def _error(self, text: str) -> ValueError:
        return ValueError(f"{self._path}: expected an LMDB of pickled structures: {text}")

    def _read(self, offset: int, size: int) -> bytes:
        if offset + size > self._size:
            raise self._error(f"truncated: its pages need {offset + size} bytes at least, and it has {self._size}")
        self._file.seek(offset)
        content = self._file.read(size)
        if len(content) != size:
            raise self._error(f"truncated while it was read: {len(content)} of {size} bytes at {offset}")
        return content

    def _meta(self) -> tuple[int, int, int, int]:
        """Size of a page, number of entries, root of the tree, number of the last page."""
        found = []
        for number in (0, 1):
            place = number * found[0][1] if found else 0
            kind, magic, version, page_size, flags, *state = _META.unpack(self._read(place, _META.size))
            if magic != 0xBEEFC0DE or version != 1 or not kind & _META_PAGE:
                raise self._error(f"there is no header at byte {place}")
            if page_size not in (2**power for power in range(9, 17)):
                raise self._error(f"damaged: its header states pages of {page_size} bytes")
            found.append((state.pop(), page_size, flags, *state))
        _, page_size, flags, entries, root, last_page = max(found)
        if flags & _DUPLICATES:
            raise self._error("its keys may have several values each")
        return page_size, entries, root, last_page

    def _page_place(self, number: int) -> int:
        if not 2 <= number <= self._last_page:
            raise self._error(f"damaged: a page's number is {number}, the last page is {self._last_page}")
        return number * self._page_size

    def _check_page(self, content: bytes, number: int, kinds: int) -> tuple[int, int]:
        """The kind of a page, and the end of its nodes' offsets."""
        stored, flags, end, _ = _PAGE.unpack_from(content)
        flags &= ~_IN_MEMORY
        if stored != number or flags not in (kind for kind in (_BRANCH, _LEAF, _OVERFLOW) if kind & kinds):
            raise self._error(f"damaged: page {number} has the number {stored} and the flags {flags}")
        return flags, end

    def _walk(self, root: int) -> None:
        """Find the places of all values."""
        waiting, known = [root], {root}
        while waiting:
            number = waiting.pop()
            begin = self._page_place(number)
            page = self._read(begin, self._page_size)
            kind, end = self._check_page(page, number, _BRANCH | _LEAF)
            if not _PAGE.size <= end <= self._page_size:
                raise self._error(f"damaged: page {number} has its nodes' offsets up to byte {end}")
            for (node,) in struct.iter_unpack("<H", page[_PAGE.size : end & ~1]):
                try:
                    if kind == _LEAF:
                        self._add(page, node, begin)
                        continue
                    low, high, flags, _ = _NODE.unpack_from(page, node)
                except struct.error:
                    raise self._error(f"damaged: page {number} has a node at byte {node}") from None
                child = low | high << 16 | flags << 32
                if child in known:
                    raise self._error(f"damaged: page {child} is in its tree twice")
                known.add(child)
                waiting.append(child)

    def _add(self, page: bytes, node: int, begin: int) -> None:
        """Note the place of a value on the leaf `page`. struct.error if the node is not within the page."""
        low, high, flags, key_size = _NODE.unpack_from(page, node)
        size = low | high << 16
        value = node + _NODE.size + key_size
        key = page[node + _NODE.size : value]
        if flags & ~_LONG_VALUE:
            raise self._error(f"key {key[:20]!r} is not of a single value (flags {flags})")
        if flags:
            self._places[key] = self._page_place(*_NUMBER.unpack_from(page, value)), size, True
        elif value + size > len(page):
            raise self._error(f"damaged: the value of key {key[:20]!r} leaves its page")
        else:
            self._places[key] = begin + value, size, False
