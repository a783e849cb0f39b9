"""Tables that a benchmark prints."""

from collections.abc import Callable, Iterable

Columns = dict[str, tuple[int, Callable[[dict], str]]]  # heading → width, and function from a row to its text


def line(texts: Iterable[str], columns: Columns) -> str:
    """Put texts side by side, padded to the widths of the columns."""
    return " ".join(f"{text:<{width - 1}}" for text, (width, _) in zip(texts, columns.values(), strict=True)).rstrip()


def show(row: dict, columns: Columns) -> str:
    """Format a row as a line of the table."""
    return line((text(row) for _, text in columns.values()), columns)


def _form(row: dict) -> str:
    precision = row["precision"] if row["precision"] != "float32" else ""
    return " ".join(filter(None, (row["topology"], row["convolution"], precision)))


def _spread(middle: float, repeats: list[float]) -> str:
    return f"{_short(middle)} ({_short(min(repeats))}–{_short(max(repeats))})"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _share(value: float, peak: float) -> str:
    return f"{_short(value / 1e9)} {value / peak:.0%}"


def _memory(row: dict) -> str:
    if row["held_bytes"] is None:
        return f"over {row['available_bytes'] / 1e9:.1f}"
    return f"{row['held_bytes'] / 1e9:.2f}+{row['temporary_bytes'] / 1e9:.2f}/{row['available_bytes'] / 1e9:.1f}"


def _time(row: dict) -> str:
    if row["estimate_ms"] is not None:
        return _short(row["estimate_ms"])
    return f"≥ {_short(row['floor_ms'])}" if row["floor_ms"] is not None else ""


def _unestimated(row: dict) -> str:
    return _short(sum(row["unestimated_bytes"].values()) / 1e6) if row["unestimated_bytes"] is not None else ""


def _collectives(row: dict) -> str:
    return f"{row['collectives']}, {_short(row['collective_bytes'] / 1e6)} MB" if row["collectives"] else ""


def _kernels(row: dict) -> str:
    if row["kernels"] is None:
        return ""
    graphs = f", {row['kernels_in_graphs']}/{row['different_kernels']}" if row["graphs"] is not None else ""
    return f"{row['kernels']:,}{graphs}"


_WORK: Columns = {
    "work": (13, lambda row: row["work"]),
    "models": (9, lambda row: row["models"]),
    "N×batch": (10, lambda row: f"{row['devices']}×{row['batch_size']}"),
    "form": (18, _form),
    "compile": (8, lambda row: f"{row['seconds_compile']:.1f} s"),
}

MEASURED: Columns = _WORK | {
    "N×batch": (9, _WORK["N×batch"][1]),
    "µs/device-step": (21, lambda row: _spread(row["us_per_device_step"], row["us_per_device_step_repeats"])),
    "GFLOP/s": (11, lambda row: _share(row["flops_per_second"], row["peak_flops_per_second"])),
    "GB/s": (11, lambda row: _share(row["bytes_per_second"], row["peak_bytes_per_second"])),
    "MB": (6, lambda row: f"{row['peak_memory_bytes'] / 1e6:.0f}"),
    "parts": (6, lambda row: f"{row['ratio_to_parts']:.2f}" if row["ratio_to_parts"] else ""),
    "torch": (17, lambda row: _spread(row["ratio_to_torch"], row["ratios_to_torch"]) if row["ratio_to_torch"] else ""),
}

MEASURED_LEGEND = (
    "Medians (smallest–largest). GFLOP/s, GB/s: useful work, least traffic, and their shares of the measured peaks."
    "\nMB: peak memory. parts: time of a distillation round / time of its parts. torch: time of PyTorch / time here."
)

PLANNED: Columns = {
    "target": (7, lambda row: row["target"]),
    **_WORK,
    "form": (13, _form),
    "compile": (7, _WORK["compile"][1]),
    "fits": (5, lambda row: "yes" if row["fits"] else "NO"),
    "GB per chip": (16, _memory),
    "ms": (8, _time),
    "+ MB": (6, _unestimated),
    "collectives": (13, _collectives),
    "kernels": (13, _kernels),
}

PLANNED_LEGEND = (
    "Figures of one round or evaluation on one chip; nothing was run. GB: held + temporary / available."
    "\nms: the compiler's estimate, without collectives, gathers, scatters and sorts (+ MB: results of the last three);"
    "\non GPUs, a lower bound from the memory traffic. kernels: number started; on GPUs, then: different kernels in"
    "\nCUDA graphs / all different kernels."
)


def remarks(row: dict) -> list[str]:
    """Return remarks on a row: its forms of execution and, if the compiler refused it, the reason."""
    found = [f"{row['work']} {row['models']} {row['devices']}×{row['batch_size']}, forms {row['forms_picked']}"]
    return found + ([f"{found[0]} refused: {row['refusal']}"] if row.get("refusal") else [])
