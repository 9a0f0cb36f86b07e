"""What a finished pipeline leaves for its reader: summary.json, report.html, the table, and what MLflow shows."""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cluster.config import plain
from cluster.config.help import python
from cluster.engine import publish
from cluster.engine.run import Run
from cluster.engine.stage import File, Manifest, read_file
from cluster.evaluate import measured
from cluster.evaluate.results import ModelResult, means_markdown, results_markdown, results_table, terminal_width
from cluster.label import sources
from cluster.quality import stage as quality
from cluster.quality import text as quality_text
from cluster.report import example, unmeasured
from cluster.report import page as report
from cluster.report.charts import Chart
from cluster.storage import bucket
from cluster.tracking.journal import Journal, flatten, read_events
from cluster.tracking.redact import redacted
from cluster.tracking.shipper import default_tracking_uri, tracking_place
from fss import heads, shards
from fss.drawing import pictures
from fss.imaging import images
from fss.tasks import task as tasks

_LOCAL = "http://127.0.0.1:5000"


def stages(run: Run) -> list[str]:
    """What the pipeline goes through, in order: the last stage and all it reads, and the report on what is paired.

    The last one is evaluate; without labelled images to measure on it is train.
    """
    config = run.config
    measured = config.dataset.rendered or config.dataset.root is not None
    names = run.order("evaluate" if measured or config.model.name in (*heads.training_free(), "trained") else "train")
    if run.config.refine.labels in names and quality.wanted(run.config):
        names.insert(names.index(run.config.refine.labels) + 1, "quality")
    return names


def conclude(run: Run) -> str:
    """Write summary.json and report.html into the run's folder, put both into MLflow, and return the closing words."""
    done = [run.ensure(name) for name in stages(run)]
    figures = publish.read_json(done[-1].path("metrics.json")) if done[-1].stage == "evaluate" else None
    rows = measured.results(figures) if figures else []
    page = _report(run, done, figures, rows)
    publish.write_json(run.folder / "summary.json", _summary(run, done, figures))
    path = report.write(page, run.folder / "report.html")
    _log(run, done, figures, rows, page)
    uri = _tracking_uri(run)
    look = _ui(run.config.root, uri, run.shipper.link(run.pipeline_name, None if uri.startswith("http") else _LOCAL))
    lines = [f"report:    {bucket.address(path)}", f"MLflow UI: {look}"]
    model = _model(done)
    if model is not None:
        lines.append(f"segment:   {example.predict(run, model)}")
    told = results_table(rows, terminal_width()) if rows else unmeasured.text(done[-1])
    return "\n".join(["", told, "", *lines])


def _tracking_uri(run: Run) -> str:
    """Where its metrics go, as it may be shown."""
    return redacted(tracking_place(run.config.tracking, run.config.root)[0])


def _ui(root: str, uri: str, page: str | None = None) -> str:
    """How to open the MLflow UI from the checkout; `page` is the run's own, if MLflow has it already."""
    if uri == default_tracking_uri(root) and bucket.is_address(root):  # which holds no database
        return f"send it with jobs.sync root={root} tracking.uri=http://HOST:5000, and open that"
    if uri == default_tracking_uri(root):
        where = "" if Path(root) == Path("runs") else f" RUNS={shlex.quote(root)}"
        return f"make ui{where}   then open {page or _LOCAL}"
    if uri.startswith("sqlite"):
        return f"{python()} -m mlflow server --backend-store-uri {shlex.quote(uri)}   then open {page or _LOCAL}"
    return page or uri


def _model(done: list[Manifest]) -> Path | None:
    return next((manifest.folder / "model" for manifest in done if manifest.stage == "train"), None)


def _summary(run: Run, done: list[Manifest], figures: Mapping[str, Any] | None) -> dict[str, Any]:
    by_stage = {
        m.stage: {"seconds": run.seconds(m), "fingerprint": m.fingerprint, "counts": dict(m.counts)} for m in done
    }
    model = _model(done)
    total = sum(run.seconds(manifest) for manifest in done)
    about = {
        "name": run.config.name,
        "results": figures,
        "stages": by_stage,
        "seconds": total,
        "model": model and bucket.address(model),
    }
    clusters = [publish.read_json(m.path("quality.json")) for m in done if m.stage == "quality"]
    return about | ({"quality": clusters[0]} if clusters else {})


def _speed_and_holdout(run: Run, done: list[Manifest]) -> dict[str, float]:
    """Images of the corpus in a second of all stages together, and what training reached on held-out tasks."""
    by_name = {manifest.stage: manifest for manifest in done}
    found = {}
    if "shard" in by_name:
        seconds = sum(run.seconds(manifest) for manifest in done)
        found["images_per_second"] = by_name["shard"].counts["accepted"] / max(seconds, 1e-3)
    if "train" in by_name and (value := unmeasured.holdout(by_name["train"])) is not None:
        found["holdout_iou"] = value
    return found


def _log(
    run: Run, done: list[Manifest], figures: Mapping[str, Any] | None, rows: list[ModelResult], page: report.Report
) -> None:
    journal = run.pipeline_journal
    if _model(done):
        _log_curves(run, journal)
    journal.metrics({f"result/{name}": value for name, value in _speed_and_holdout(run, done).items()})
    if figures is None:
        journal.tags({"mlflow.note.content": page.summary})
    else:
        model = list(figures["models"])[-1]
        for number, of_shots in figures["models"][model].items():
            journal.metrics({f"result/{key}_{number}shot": of_shots["mean"][key] for key in ("miou", "fb_iou")})
        journal.tags({"mlflow.note.content": f"{means_markdown(rows)}\n\n{results_markdown(rows)}"})
    journal.artifact(run.folder / "report.html")
    journal.artifact(run.folder / "summary.json")
    _log_galleries(run, page)


def _log_curves(run: Run, journal: Journal) -> None:
    """Loss and IoU of the training into the pipeline's own run: of pipelines, not of stages, MLflow shows charts."""
    by_step: dict[float, dict[str, float]] = {}
    curves = _curves(run, "train")
    for name in ("loss", "holdout_loss", "iou", "holdout_iou"):
        for step, value in curves.get(name, ()):
            by_step.setdefault(step, {})[f"train/{name}"] = value
    for step, values in sorted(by_step.items()):
        journal.metrics(values, step=int(step))


def _log_galleries(run: Run, page: report.Report) -> None:
    """Pseudo-labels and pseudo-tasks into the runs of the stages that made them; predictions go image by image."""
    for gallery in page.galleries:
        stage = {"Pseudo-labels": run.config.refine.labels, "Pseudo-tasks": "pair"}.get(gallery.title)
        if stage in run.fresh:
            tiles = [tile.image for tile in gallery.tiles]
            rows = [tiles[i : i + 4] for i in range(0, len(tiles), 4)]
            with run.journal(stage) as child:
                child.image(gallery.title.lower().replace("-", "_"), pictures.contact_sheet(rows, cell=gallery.cell))


def _report(
    run: Run, done: list[Manifest], figures: Mapping[str, Any] | None, rows: list[ModelResult]
) -> report.Report:
    config, model = run.config, _model(done)
    commands = [report.NextCommand("Look at the runs in MLflow", _ui(config.root, _tracking_uri(run)))]
    if model:
        commands.append(report.NextCommand("Segment your own images", example.predict(run, model)))
    summary, *notes = measured.notes_on(figures) if figures else [unmeasured.text(done[-1])]
    shown = _predictions(done[-1]) if figures else unmeasured.gallery(done[-1])
    return report.Report(
        title=f"{config.name}: few-shot segmentation from unlabelled images",
        summary=summary,
        results_note="; ".join(notes),
        headlines=_headlines(figures) if figures else unmeasured.headlines(done[-1]),
        facts={"folder": bucket.address(run.folder), "backbone": config.backbone.name, "seed": config.seed},
        stages=[_stage(run, m) for m in done],
        results=rows,
        classes=measured.class_scores(figures) if figures else {},
        charts=list(_charts(run, [m.stage for m in done])),
        galleries=[g for g in (_clusters(run), _labels(run), _tasks(run), shown) if g],
        commands=commands,
        config="\n".join(f"{key}={value}" for key, value in flatten(redacted(plain(config))).items()),
    )


def _headlines(figures: Mapping[str, Any]) -> list[report.Headline]:
    *floors, (model, by_shots) = figures["models"].items()
    lines = []
    for number, value in by_shots.items():
        note = "; ".join(f"{name}: {100 * by[number]['mean']['miou']:.1f}" for name, by in floors)
        lines.append(report.Headline(f"{100 * value['mean']['miou']:.1f}", f"{number}-shot mIoU, {model}", note))
    first = next(iter(by_shots.values()))
    lines.append(report.Headline(f"{first['mean']['area_ratio']:.2f}", "predicted / true area", "1 is right"))
    return lines


def _stage(run: Run, manifest: Manifest) -> report.StageRow:
    unit = run.unit(manifest.stage)
    size = sum(file.bytes for file in manifest.files)
    return report.StageRow(manifest.stage, run.seconds(manifest), manifest.counts.get(unit, 0), unit, size)


def _charts(run: Run, stages: list[str]) -> Iterator[Chart]:
    for stage in (name for name in stages if name in ("pretrain", "train")):
        curves = _curves(run, stage)
        for names in (("loss", "holdout_loss"), ("iou", "holdout_iou")):
            chosen: dict[str, list[tuple[float, float]]] = {name: curves[name] for name in names if name in curves}
            if chosen:
                yield Chart(f"{stage}: {names[0]}", chosen)


def _curves(run: Run, stage: str) -> dict[str, list[tuple[float, float]]]:
    """Step and value of everything that a training told, by its name."""
    curves: dict[str, list[tuple[float, float]]] = {}
    events, _ = read_events(run.tracking_folder / f"{run.journal_name(stage)}.jsonl")
    for event in events:
        if event["kind"] == "metrics" and event["step"] is not None:
            for key, value in event["values"].items():
                points = curves.setdefault(key.split("/", 1)[1], [])
                points[:] = [*(p for p in points if p[0] < event["step"]), (event["step"], value)]  # resumed runs
    return curves


def _clusters(run: Run) -> report.Gallery | None:
    """The atlas of clusters with the figures of quality.json."""
    try:
        manifest = run.manifest("quality")
    except ValueError:
        return None
    figures = publish.read_json(manifest.path("quality.json"))
    tiles = [report.Tile(_picture(manifest, file)) for file in manifest.named(".jpg")]
    return report.Gallery("Clusters", tiles, quality_text.note(figures), 1180, quality_text.tables(figures))


def _labels(run: Run) -> report.Gallery | None:
    """The first images of the first corpus shard with their label maps."""
    try:
        corpus, labels = run.manifest("shard"), run.manifest(run.config.refine.labels)
    except ValueError:
        return None
    first = zip(
        shards.unpack(read_file(corpus.folder, corpus.named(".tar")[0])),
        shards.unpack(read_file(labels.folder, labels.named(".tar")[0])),
        strict=True,
    )
    clusters, tiles = sources.chosen(run.config).clusters and not run.config.refine.on, []
    for (_, members), (_, maps) in list(first)[:6]:
        image = images.decode(members["jpg"])
        for layer, png in maps.items():
            tinted = images.decode_labels(png)
            tile = pictures.label_overlay(image, tinted, void=images.VOID if clusters else 0)
            tiles.append(report.Tile(tile, f"layer {layer[0]}"))
    of = "cluster" if clusters else "label"
    where = f"all images of a group of {run.config.pair.group_shards} shards" if run.config.refine.on else "all images"
    return report.Gallery("Pseudo-labels", tiles, f"One colour is one {of}, over {where}.")


def _tasks(run: Run) -> report.Gallery | None:
    """A few pseudo-tasks, as the model sees them."""
    try:
        pair = run.manifest("pair")
    except ValueError:
        return None
    tiles = []
    file = next(f for f in pair.named(".tar") if f.count)
    for sample in list(shards.unpack(read_file(pair.folder, file)))[:8]:
        task = tasks.decode(sample)
        shown = [images.decode(jpeg) for jpeg in task.jpegs]
        masks = [images.decode_labels(png) for png in task.masks]
        picture = pictures.episode_picture(shown[1:], masks[1:], shown[0], None, masks[0], note="pseudo-mask", cell=160)
        tiles.append(report.Tile(picture))
    return report.Gallery("Pseudo-tasks", tiles, "Support with its mask, query, and the mask to be learned.", 420)


def _predictions(evaluated: Manifest) -> report.Gallery | None:
    shown = [f for f in evaluated.files if f.path.startswith("gallery/")]
    tiles = [report.Tile(_picture(evaluated, file), Path(file.path).stem) for file in shown]
    note = "Blue: prediction. Yellow outline: truth. Orange: support masks. Best, median and worst of each fold."
    return report.Gallery("Predictions", tiles, note, 560) if tiles else None


def _picture(manifest: Manifest, file: File) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(read_file(manifest.folder, file))).convert("RGB"))
