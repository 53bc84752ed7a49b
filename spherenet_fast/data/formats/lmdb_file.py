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
_DEEPEST = 32  # levels of pages, of which even 2**48 keys need fewer
_MOST_BRANCHES = 1024  # pages that are kept in memory


class LmdbFile:
    """The main database of an LMDB file. A value is looked for when it is asked for: memory does not grow with it.

    Args:
        check: read the pages of all keys first, and compare their number with the header's.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is truncated, damaged, or no LMDB of this kind; `get`, too, raises it.
    """

    def __init__(self, path, check: bool = True):
        self._path = path
        self._file = open(path, "rb", buffering=0)
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self._page_size, self._entries, self._root, self._last_page = self._meta()
            self._branches: dict[int, tuple[bytes, int, tuple[int, ...]]] = {}  # pages that lead to all others
            found = self._walk() if check and self._root != _NO_PAGE else 0
            if check and found != self._entries:
                raise self._error(f"damaged: its header states {self._entries} entries, its pages have {found}")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "LmdbFile":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __len__(self) -> int:
        return self._entries

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        number, depth = self._root, 0
        while number != _NO_PAGE:
            page, kind, nodes = self._page(number)
            try:
                node = self._last_node_up_to(key, page, nodes, kind)
                if node is None:
                    return None
                if kind == _LEAF:
                    place = self._place(page, node, self._page_place(number))
                    return None if self._key(page, node) != key else self._value(*place)
                number, depth = self._child(page, node), depth + 1
            except struct.error:
                raise self._error(f"damaged: page {number} has a node at byte {node}") from None
            if depth > _DEEPEST:
                raise self._error("damaged: its tree leads in a circle")
        return None

    def _value(self, offset: int, size: int, on_pages: bool) -> bytes:
        if not on_pages:
            return self._read(offset, size)
        content = self._read(offset, _PAGE.size + size)
        self._check_page(content, offset // self._page_size, _OVERFLOW)
        return content[_PAGE.size :]

    def _last_node_up_to(self, key: bytes, page: bytes, nodes: tuple[int, ...], kind: int) -> int | None:
        """The last of the nodes whose key is not greater; the first node of a branch counts as lower than all keys."""
        low, high = (1 if kind == _BRANCH and nodes else 0), len(nodes)
        while low < high:
            middle = (low + high) // 2
            if self._key(page, nodes[middle]) <= key:
                low = middle + 1
            else:
                high = middle
        return nodes[low - 1] if low else None

    def _key(self, page: bytes, node: int) -> bytes:
        size = _NODE.unpack_from(page, node)[3]
        return page[node + _NODE.size : node + _NODE.size + size]

    def _child(self, page: bytes, node: int) -> int:
        """The page that a node of a branch leads to."""
        low, high, flags, _ = _NODE.unpack_from(page, node)
        return low | high << 16 | flags << 32

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

    def _page(self, number: int) -> tuple[bytes, int, tuple[int, ...]]:
        """Content and kind of a page with keys, and the places of its nodes."""
        if number in self._branches:
            return self._branches[number]
        page = self._read(self._page_place(number), self._page_size)
        kind, end = self._check_page(page, number, _BRANCH | _LEAF)
        if not _PAGE.size <= end <= self._page_size:
            raise self._error(f"damaged: page {number} has its nodes' offsets up to byte {end}")
        found = page, kind, tuple(node for (node,) in struct.iter_unpack("<H", page[_PAGE.size : end & ~1]))
        if kind == _BRANCH and len(self._branches) < _MOST_BRANCHES:
            self._branches[number] = found
        return found

    def _walk(self) -> int:
        """Look at the pages of all keys; how many keys there are."""
        waiting, known, count = [self._root], {self._root}, 0
        while waiting:
            number = waiting.pop()
            page, kind, nodes = self._page(number)
            begin = self._page_place(number)
            for node in nodes:
                try:
                    if kind == _LEAF:
                        self._place(page, node, begin)
                        count += 1
                        continue
                    child = self._child(page, node)
                except struct.error:
                    raise self._error(f"damaged: page {number} has a node at byte {node}") from None
                if child in known:
                    raise self._error(f"damaged: page {child} is in its tree twice")
                known.add(child)
                waiting.append(child)
        return count

    def _place(self, page: bytes, node: int, begin: int) -> tuple[int, int, bool]:
        """Offset and size of a value on the leaf `page`, which is at `begin`, and whether it is on pages of its own.

        struct.error if the node is not within the page.
        """
        low, high, flags, key_size = _NODE.unpack_from(page, node)
        size = low | high << 16
        value = node + _NODE.size + key_size
        key = page[node + _NODE.size : value]
        if flags & ~_LONG_VALUE:
            raise self._error(f"key {key[:20]!r} is not of a single value (flags {flags})")
        if flags:
            return self._page_place(*_NUMBER.unpack_from(page, value)), size, True
        if value + size > len(page):
            raise self._error(f"damaged: the value of key {key[:20]!r} leaves its page")
        return begin + value, size, False
