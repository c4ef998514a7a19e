"""`wsi-attention classify`: a folder of slides in, a results folder out."""

from __future__ import annotations

from wsi_attention.cli import classify_options as option


def classify(
    inputs: option.Inputs = None,
    more: option.More = None,
    results: option.Results = "results",
    model: option.Model = None,
    workers: option.Workers = 1,
    batch: option.Batch = 32,
    device: option.Device = "auto",
    precision: option.Precision = "auto",
    mpp: option.Mpp = None,
    series: option.Series = None,
    slides_csv: option.SlidesCsv = None,
    limit: option.Limit = 1800.0,
    exact: option.Exact = False,
    tolerance: option.Tolerance = None,
    budget: option.Budget = None,
    unread: option.Unread = None,
    no_snap: option.NoSnap = False,
    what: option.What = None,
    overwrite: option.Overwrite = False,
    profile: option.Profile = False,
    full_hash: option.FullHash = False,
    cache: option.Cache = None,
    scheduler: option.Scheduler = None,
    local_cluster: option.LocalCluster = None,
    slurm: option.Slurm = None,
    in_process: option.InProcess = False,
) -> None:
    """Labels slides, and shows the regions each label rests on. A second run does only what is missing.

    Exit status: 0 all slides done, 1 some failed or have no tissue (the table says which), 2 the call was wrong,
    130 interrupted.

    Example: wsi-attention classify -i slides/ -o results/ -m model/
    """
    from contextlib import ExitStack

    from wsi_attention.cli.interrupts import starting
    from wsi_attention.inference import nursery

    folder = option.given(model)
    with ExitStack() as stack:
        if not (in_process or scheduler or local_cluster or slurm):
            stack.enter_context(nursery.prepared())  # workers import what they need while this process does
        with starting():
            from wsi_attention.cli.caching import use_cache
            from wsi_attention.cli.ending import warn
            from wsi_attention.cli.progress import watching
            from wsi_attention.inference import batch as batches
            from wsi_attention.inference.cluster import open_cluster
            from wsi_attention.models.checkpoint import load_model

            classifier = load_model(folder)
            warn(classifier.purpose)
            use_cache(cache)
        report = batches.classify(
            [*(inputs or ()), *(more or ())],
            results,
            classifier,
            slides_csv=slides_csv,
            mpp=mpp,
            series=series,
            workers=workers,
            batch=batch,
            device=device,
            precision=precision,  # type: ignore[arg-type]  # checked there, with an error that lists what there is
            limit=limit,
            exact=exact,
            tolerance=tolerance,
            budget=budget,
            unread=unread,
            snap=not no_snap,
            what=batches.EXPORTS if what is None else [name.strip() for name in what.split(",") if name.strip()],
            existing="overwrite" if overwrite else "resume",
            watch=stack.enter_context(watching()),
            executor=stack.enter_context(open_cluster(scheduler, local_cluster, slurm, device)),
            in_process=in_process,
            profile=profile,
            full_hash=full_hash,
        )
    from wsi_attention.cli.ending import end

    end(report)
