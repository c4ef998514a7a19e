"""The record of a study: what a methods section needs, as `record.md` and `record.html`, from the study's own files."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_attention.checkpoint import CONFIG, certainty_of, read_config
from wsi_attention.csv_table import read_table
from wsi_attention.errors import InputError
from wsi_attention.evaluation.overlap import OUT_OF_FOLD
from wsi_attention.files import write_text
from wsi_attention.inference.results.state import State, read_states
from wsi_attention.json_values import JsonObject, parse
from wsi_attention.model_card import ModelConfig
from wsi_attention.model_encoder import KEY, EncoderPart, named_encoder
from wsi_attention.slide.urls import masked
from wsi_attention.statistics.intervals import METHODS
from wsi_attention.structures import UNDECIDED
from wsi_attention.study.fold import LABELS
from wsi_attention.study.guidelines import CLAIM, TRIPOD, filled
from wsi_attention.study.out_of_fold import REMARKS, RUN, names_of
from wsi_attention.study.record_page import Section, as_html, as_markdown
from wsi_attention.training.plan import FINISHED
from wsi_attention.training.plan import FOLDER as TRAINING

STUDY = "study.json"
"""What a folder of a study is known by: digests of all that decides it, and how it was asked for."""
FOLDS = "folds"
MARKDOWN, PAGE = "record.md", "record.html"
PARTS = {"train": "training", "val": "validation", "test": "held out"}
RELATED = "as other slides of their patients are kept for the test"


@dataclass(frozen=True)
class FoldFacts:
    """What the files of a fold say.

    Attributes:
        name: e.g. "1-3".
        parts: part -> its rows of the labels.
        finished: `training/finished.json`.
        config: of its model.
    """

    name: str
    parts: Mapping[str, Sequence[Mapping[str, str]]]
    finished: JsonObject
    config: ModelConfig


@dataclass(frozen=True)
class StudyFacts:
    """What the files of a study say.

    Attributes:
        folder: of the study.
        about: `study.json`.
        folds: each fold.
        config: of the ensemble.
        states: of the held-out slides, without their records.
        remarks: on slides that judge although a model had seen them, or may have.
    """

    folder: Path
    about: JsonObject
    folds: tuple[FoldFacts, ...]
    config: ModelConfig
    states: tuple[State, ...]
    remarks: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Mapping[str, str]]:
        """The rows of the labels that take part."""
        return [row for part in self.folds[0].parts.values() for row in part]

    @property
    def recipe(self) -> Mapping[str, object]:
        """Of every training."""
        return self.config["recipe"]


def write_record(study: str | Path) -> Path:
    """Write `record.md` and `record.html` of a finished study anew; return the page.

    Raises:
        InputError: the folder holds no finished study.
        ResultsError: it cannot be written.
    """
    found = facts_of(Path(study))
    sections = list(_sections(found))
    title = f"Study record: {found.folder.resolve().name}"
    write_text(found.folder / MARKDOWN, as_markdown(title, sections))
    write_text(found.folder / PAGE, as_html(title, sections))
    return found.folder / PAGE


def facts_of(study: Path) -> StudyFacts:
    """Return what the files of a study say.

    Raises:
        InputError: the folder holds no study, or one that is not finished.
    """
    if not (study / STUDY).is_file():
        raise InputError(f"{study} holds no study (no {STUDY}); give the folder that crossvalidate wrote")
    if not (study / CONFIG).is_file():
        raise InputError(f"{study}: the study is not finished; give its crossvalidate command again, which goes on")
    try:
        about = parse((study / STUDY).read_text(encoding="utf-8"))
        folds = tuple(_fold(study / FOLDS / name) for name in about["folds"])
        run = study / OUT_OF_FOLD / RUN
        remarks = parse(run.read_text(encoding="utf-8")).get(REMARKS, []) if run.is_file() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{study}: its record cannot be made ({error}); crossvalidate again") from error
    states = tuple(state.without_record() for state in read_states(study / OUT_OF_FOLD))
    return StudyFacts(study, about, folds, read_config(study), states, tuple(map(str, remarks)))


def _fold(folder: Path) -> FoldFacts:
    parts: dict[str, list[Mapping[str, str]]] = {part: [] for part in PARTS}
    for _, cells in read_table(folder / LABELS).rows:
        parts[cells["split"]].append({key: unicodedata.normalize("NFC", cell) for key, cell in cells.items()})
    finished = parse((folder / TRAINING / FINISHED).read_text(encoding="utf-8"))
    return FoldFacts(folder.name, parts, finished, read_config(folder))


def _sections(found: StudyFacts) -> Iterator[Section]:
    facts = guideline_facts(found)
    yield Section("What was done", (facts["model"], facts["division"], facts["ensemble"], facts["choice"]))
    yield Section("Command", (), code=masked(str(found.about.get("command") or "The command was not recorded.")))
    yield Section("Data flow", (facts["flow"],), ("slides", "patients", "classes"), _flow(found))
    yield Section("Slides that were left out, and why", (), ("slide", "where", "why"), _left_out(found))
    yield Section("Splits", (facts["apart"],), ("fold", *PARTS.values()), _splits(found))
    yield Section("Results out of fold", (METHODS + ".", *found.remarks), ("measure", "value"), _results(found))
    yield Section("How far to believe a label", _certainty(found))
    yield Section("Models", (), ("model", "best epoch", "validation AUROC", "sha256 of the weights"), _models(found))
    yield Section("Encoder", _encoder(found))
    yield Section("Software", (), ("package", "version"), _versions(found))
    yield Section("Seeds", (f"The seed of the recipe is {found.recipe['seed']}. {SEEDS}",))
    yield Section("Recipe", (), code=json.dumps(found.recipe, indent=2))
    note = f"Numbers of items of {TRIPOD} (Collins 2024) and {CLAIM} (update of 2024); what they ask is in our words. "
    note += "Read the statements themselves before you submit."
    yield Section("Reporting guidelines", (note,), (TRIPOD, CLAIM, "asks for", "this study"), filled(facts))


SEEDS = (
    "It decides the folds, the validation patients of each fold, the first weights, the order of slides, draws and"
    " augmentation; all folds use the same. At prediction, draws are seeded by the slide's content and the weights."
)


def guideline_facts(found: StudyFacts) -> dict[str, str]:
    """Return what the record knows, a sentence or two each, by the keys of `guidelines.ITEMS`."""
    about, recipe, config = found.about, found.recipe, found.config
    folds, repeats, site = about["wanted"]["folds"], about["wanted"]["repeats"], about["wanted"]["site"]
    patients = len({_patient(row) for row in found.rows})
    whole = f"a {'patient' if about['patients_given'] else 'slide'}{f' or a value of {site}' if site else ''}"
    augmentation = recipe["augmentation"]
    again = f", and that {repeats} times" if repeats > 1 else ""
    failed = [state for state in found.states if state.status not in ("done", "partial")]
    encoder = named_encoder(config["options"]) or "none"
    return {
        "preparation": (
            f"Tissue is found on an overview; tiles are read at {config['mpp']:g} µm per pixel and normalised by"
            f" the colours mean {config.get('mean')} and deviation {config.get('std')}."
        ),
        "subset": "The overview, and the tiles that attention asks for; out_of_fold/tiles names those of each slide.",
        "predictors": "The pixels of the slide, and nothing else.",
        "numbers": f"{len(found.rows)} slides of {patients} patients; why so many is {'for the authors'}.",
        "missing": (
            "A tile that cannot be read leaves its slide's sum and is counted; a slide that cannot be used is left out"
            f" and named: {len(failed)} of {len(found.states)} slides have no prediction. Nothing is imputed."
        ),
        "division": (
            f"The patients were divided into {folds} folds by label{again}. Each fold was held out once: a model was"
            f" trained on the others, of which a share of {recipe['validation_share']:g} was kept for validation, and"
            " then predicted the slides that were held out."
        ),
        "apart": f"Slides of {whole} are never in two folds, and a patient is never both in training and validation.",
        "model": (
            f"The method is {recipe['method']} of wsi-attention {config['package_version']}, with the tile encoder"
            f" {encoder}, for the classes {', '.join(config['classes'])}."
        ),
        "software": ", ".join(f"{name} {version}" for name, version in _versions(found)),
        "start": _start(recipe),
        "training": (
            f"AdamW, {json.dumps(recipe['optimiser'])}; at most {recipe['epochs']} epochs, ended after"
            f" {recipe['patience']} without a better validation; {recipe['batch']} slides a step; augmentation"
            f" {json.dumps(augmentation)}."
        ),
        "choice": f"The epoch with the best validation ({recipe['best']}) is kept; held-out slides chose nothing.",
        "ensemble": f"The final model is the mean of the probabilities of the {len(found.folds)} models of the folds.",
        "sites": (
            f"Values of {site} are never in two folds, so that each is predicted by a model that has not seen it."
            if site
            else "Folds were not kept apart by hospital; crossvalidate --site COLUMN does."
        ),
        "measures": f"AUROC and accuracy. {METHODS}.",
        "availability": f"The model folder holds all weights and options; sha256 {config['weights_sha256']}.",
        "balance": (
            "Each class counts the same in the loss; see the output for what was done about the probabilities."
            if recipe["class_weights"] == "balanced"
            else "Nothing was done."
        ),
        "output": " ".join(
            ("A probability of each class; the label is the class with the highest.", *_certainty(found))
        ),
        "external": "This study has no data of other origin; evaluate takes such predictions.",
        "explained": "Each prediction names the tiles it rests on, with weights, and its attention map.",
        "code": "The code is wsi-attention, the model this folder; the data are for the authors.",
        "flow": _flow_text(found),
        "parts": "; ".join(f"fold {row[0]}: {', '.join(row[1:])}" for row in _splits(found)),
        "performance": "; ".join(f"{name} {value}" for name, value in _results(found)),
        "failures": f"out_of_fold/predictions.csv has each slide; {_wrong(found)}.",
        "input": (
            "A slide without tissue, scale or readable pixels gets no label and a reason; tiles that cannot be read"
            " make a prediction partial."
        ),
    }


def _certainty(found: StudyFacts) -> tuple[str, ...]:
    """Return what is known of how far to believe a label of the ensemble."""
    known = certainty_of(found.config, found.folder / CONFIG)
    fitted = known.calibration or known.conformal
    whose = "Both rest on out-of-fold predictions of single models; the final model is their mean."
    return (*known.sentences, *([whose] if fitted else []))


def _start(recipe: Mapping[str, object]) -> str:
    parts = [f"weights of {recipe['start']}"] if recipe["start"] else []
    parts += [f"encoder weights: {recipe['encoder_start']}"] if recipe["encoder_start"] else []
    return f"{'; '.join(parts) or 'Random weights'}, the same for every fold."


def _flow(found: StudyFacts) -> list[tuple[str, str, str]]:
    rows = found.rows
    counts = Counter(row["label"] for row in rows)
    left, related = len(found.about["left_out"]), len(_related(found))
    done = [state for state in found.states if state.status in ("done", "partial")]
    lines = [(f"{len(rows) + left + related} in the labels", "", "")]
    lines += [(f"{left} left out, as their split is test", "", "")] if left else []
    lines += [(f"{related} left out, {RELATED}", "", "")] if related else []
    classes = ", ".join(f"{counts[name]} {name}" for name in found.config["classes"])
    lines.append((f"{len(rows)} take part", str(len({_patient(row) for row in rows})), classes))
    labels = ", ".join(f"{n} predicted {name}" for name, n in sorted(Counter(s.row["label"] for s in done).items()))
    return [*lines, (f"{len(done)} predicted out of fold", "", labels)]


def _flow_text(found: StudyFacts) -> str:
    statuses = Counter(state.status for state in found.states)
    trained = {slide for fold in found.folds for slide in fold.finished["failed"]}
    told = ", ".join(f"{count} {name}" for name, count in sorted(statuses.items()))
    return f"Out-of-fold predictions: {told}. {len(trained)} slides could not be used in training or validation."


def _left_out(found: StudyFacts) -> list[tuple[str, str, str]]:
    test = [(slide, "the study", "split is test") for slide in found.about["left_out"]]
    test += [(slide, "the study", RELATED) for slide in _related(found)]
    training = [
        (slide, f"training or validation of fold {fold.name}", str(reason))
        for fold in found.folds
        for slide, reason in sorted(fold.finished["failed"].items())
    ]
    held = [
        (state.name, "prediction", f"{state.status}: {state.reason}")
        for state in found.states
        if state.status not in ("done", "partial")
    ]
    return [*test, *training, *held] or [("none", "", "")]


def _related(found: StudyFacts) -> Sequence[str]:
    return list(found.about.get("related", ()))


def _splits(found: StudyFacts) -> list[tuple[str, ...]]:
    return [(fold.name, *(_counted(fold.parts[part]) for part in PARTS)) for fold in found.folds]


def _counted(rows: Sequence[Mapping[str, str]]) -> str:
    labels = ", ".join(f"{n} {name}" for name, n in sorted(Counter(row["label"] for row in rows).items()))
    return f"{len(rows)} slides of {len({_patient(row) for row in rows})} patients ({labels})"


def _results(found: StudyFacts) -> list[tuple[str, str]]:
    return [(name, _number(value)) for name, value in found.config["metrics"].items()]


def _number(value: object) -> str:
    if isinstance(value, list):
        return " to ".join(map(_number, value))
    return f"{value:.3f}" if isinstance(value, float) else "none" if value is None else str(value)


def _models(found: StudyFacts) -> list[tuple[str, str, str, str]]:
    rows = []
    for fold in found.folds:
        best = fold.finished["best"]
        epochs, auroc = f"{best['epoch']} of {fold.finished['epochs']}", _number(best["val_auroc"])
        rows.append((f"fold {fold.name}", epochs, auroc, fold.config["weights_sha256"]))
    return [*rows, ("ensemble", "", "", found.config["weights_sha256"])]


def _encoder(found: StudyFacts) -> tuple[str, ...]:
    part = EncoderPart.of(found.config.get(KEY))
    if part:
        return (*part.sentences, f"sha256 of its weights: {part.sha256}.")
    name = named_encoder(found.config["options"])
    return (f"The tile encoder is {name}, with no weights that others published.",) if name else ("There is none.",)


def _versions(found: StudyFacts) -> list[tuple[str, str]]:
    return [(str(name), str(version)) for name, version in found.about["versions"].items()]


def _wrong(found: StudyFacts) -> str:
    labels = {row["slide"].replace("\\", "/"): row["label"] for row in found.rows}
    names = {name: slide for slide, name in names_of(found.states, labels, str(found.about["labels"])).items()}
    known = [state for state in found.states if state.name in names and state.row.get("label")]
    withheld = [s for s in known if s.row["label"] == UNDECIDED and UNDECIDED not in found.config["classes"]]
    called = [state for state in known if state not in withheld]
    wrong = [state.name for state in called if state.row["label"] != labels[names[state.name]]]
    some = ", ".join(wrong[:10]) + (", …" if len(wrong) > 10 else "")
    open_ones = f"; {len(withheld)} of {len(known)} are undecided" if withheld else ""
    return (
        f"{len(wrong)} of {len(called)} have another label than the one given{f': {some}' if wrong else ''}{open_ones}"
    )


def _patient(row: Mapping[str, str]) -> str:
    return row.get("patient") or row["slide"]
