"""Reader of files that list the links of a graph.

NetworkX is slow to load, so other modules import this module only where they need it.
"""

import re
from pathlib import Path

import networkx as nx

from ddjax.errors import InputError, no_file

# Ten digits suffice for any device number, and Python refuses to parse thousands of digits. NetworkX writes `{}` after
# a link without data.
_LINK = re.compile(r"\s*([0-9]{1,10})(?:\s*[,;]\s*|\s+)([0-9]{1,10})[\s,;]*(?:\{\}\s*)?(?:[#%].*)?")
_MORE = re.compile(r"\s*[0-9]+[\s,;]+[0-9]+[\s,;]")
_NOTHING = re.compile(r"[\s,;]*(?:[#%].*)?")


def read_edges(path: str, devices: int, directed: bool) -> nx.Graph:
    """Read a graph from a text file with one link `i j` per line.

    Spaces, tabs, commas or semicolons separate the two numbers. Blank lines and comments after `#` or `%` are skipped.
    Devices are numbered from 0. If the number `devices` occurs and 0 does not, they are numbered from 1.
    `graph.graph["note"]` says what the user should know about the numbering and about links that were dropped.

    Raises:
      InputError: if the file cannot be read, a line is not a link between two of the devices, or the file has no links.
    """
    links = _links(path, devices)
    if not links and devices > 1:
        raise InputError(f"the edge file {path!r} contains no links; write one line `i j` per link")
    ends = {end for link, _ in links for end in link}
    first = int(0 not in ends and devices in ends)
    for link, number in links:
        if max(link) >= devices + first:
            raise InputError(
                f"{path}:{number}: device {max(link)} is not one of the {devices} devices, which are numbered from 0 "
                f"to {devices - 1}, or from 1 to {devices} in a file without a 0; change the file, or increase "
                "--devices"
            )
    graph = nx.empty_graph(devices, create_using=nx.DiGraph if directed else nx.Graph)
    proper = [(i - first, j - first) for (i, j), _ in links if i != j]
    graph.add_edges_from(proper)
    loops, repeated = len(links) - len(proper), len(proper) - graph.number_of_edges()
    notes = {
        f"numbered from 1, so that 1 is device 0 and {devices} is device {devices - 1}": first,
        f"ignored links from a device to itself: {loops}": loops,
        f"repeated links: {repeated}": repeated,
    }
    graph.graph["note"] = "; ".join(note for note, holds in notes.items() if holds)
    return graph


def _links(path: str, devices: int) -> list[tuple[tuple[int, int], int]]:
    """Return `((i, j), line number)` for each link of a file, with devices numbered as in the file."""
    links = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", _text(path)), 1):
        if found := _LINK.fullmatch(line):
            links.append(((int(found[1]), int(found[2])), number))
        elif not _NOTHING.fullmatch(line):
            shown = repr(line.strip() if len(line) < 60 else f"{line.strip()[:60]}…")
            wanted = f"two device numbers from 0 to {devices - 1}"
            if _MORE.match(line):
                wanted, shown = "only two device numbers", f"{shown}; weights come from --mixing_weights"
            raise InputError(f"{path}:{number}: expected {wanted}, got {shown}")
    return links


def _text(path: str) -> str:
    try:
        return Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise no_file(path) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: this is not UTF-8 text; save the edge file as UTF-8") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot read the edge file {path!r}: {getattr(error, 'strerror', None) or error}") from None
