"""What `article/article.md` is filled with: numbers, tables and their origin, all from committed results."""

import dataclasses
import inspect
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown

from ..config import DATASETS, PROFILES
from ..evaluation.baselines import BACKGROUND, CTF, FORMULAS, RELEASED, WHITE
from ..evaluation.classification import train_probe
from ..evaluation.downstream import GENERATED, PHYSICS, PROBES, REAL
from ..physics.estimate import FACES, MOST_SIGNAL
from ..physics.fourier_grid import RADII
from ..physics.signal_moments import BEND, SIGN_CHANGE
from ..reproducibility import paths
from ..run_folder import CLEARLY
from .cell_left_out import OFF, PUT_IN
from .claims import claims_table
from .competitor import TRAINED
from .denoiser import FILTERED, RESTORED
from .findings import SIGN_DRAWS, UNSEEN_DRAWS, Results, mean
from .picker import LONG_STEPS
from .picker_and_templates import BEST, BOTH
from .picking import BATCH, CTF_WEDGE, NARROW, PATCH, STEPS, WIDE
from .plotting import over_draws
from .proof import ABLATED, HEADLINE_SNR
from .record import is_older
from .template_matching import ROTATIONS, TEMPLATES
from .wrong_input import LEARNED, MENDED, NO_CTF, OFF_CENTRE, UNLABELLED
from .wrong_input import NAMES as WRONG_INPUTS

PROFILE, SEEDS = "quick", (0, 1, 2)
POINTS = 5.0  # of accuracy: less is not resolved by one training of each
APART = 0.9  # an AUC at which generated volumes are told from real ones


def numbers() -> dict[str, str]:
    """Every number of the article's prose, by name, as text."""
    r = Results(PROFILE, SEEDS)
    found = {}
    for dataset in ("S1", "S2"):
        for name, source in (("physics", PHYSICS), ("real", REAL), ("background", BACKGROUND)):
            found[f"{dataset}_{name}"] = f"{mean(r.comparison(dataset, source)):.1f}"
        found[f"{dataset}_formula"] = f"{max(mean(r.comparison(dataset, name)) for name in FORMULAS):.1f}"
        found[f"{dataset}_wedge_power"] = over_draws(r.apart(dataset, PHYSICS, "wedge_power"), 2)
        found[f"{dataset}_auc"] = f"{mean(r.apart(dataset, PHYSICS, 'auc')):.2f}"
        found[f"denoised_{dataset}"] = f"{r.denoised(dataset, RESTORED):.2f}"
        found[f"filtered_{dataset}"] = f"{r.denoised(dataset, FILTERED):.2f}"
        found[f"{dataset}_evening"] = f"{mean(r.on_real(dataset)):.1f}"
        found[f"{dataset}_evening_range"] = f"{min(r.on_real(dataset)):.1f} to {max(r.on_real(dataset)):.1f} %"
        found[f"{dataset}_read"] = f"{mean(r.metric(dataset, 'accuracy')):.1f}"
    for name, volumes in (("read_as_generated", "as generated"), ("read_stronger", "signal times 1.5")):
        found[name] = f"{r.label_read(volumes):.0f}"
    for dataset in ("S1", "S2"):
        named = {"": PHYSICS, "_wedge": CTF_WEDGE, "_white": WHITE, "_templates": TEMPLATES, "_real": REAL}
        for name, source in named.items():
            found[f"{dataset}_picker{name}"] = f"{r.picker(dataset, source):.3f}"
    for condition in (LEARNED, NO_CTF, UNLABELLED):
        name = f"templates_{WRONG_INPUTS[condition].replace('-', '_')}"
        found[name] = f"{mean(r.wrong_input(condition, TEMPLATES)):.3f}"
    formula, generated = r.in_coloured_noise()
    found |= {"coloured_formula": f"{formula:.3f}", "coloured_generated": f"{generated:.3f}"}
    found["S2_ahead_of_background"] = over_draws(r.ahead_of("S2", (BACKGROUND,)), 1)
    found["S2_pickers_less_templates"] = over_draws(
        list(np.subtract(r.pickers("S2", PHYSICS), r.pickers("S2", TEMPLATES))), 3
    )
    found |= {"flow": over_draws(r.competitor(), 1, (0, 100)), "flow_steps": f"{TRAINED}"}
    found["wrong_signs"] = f"{r.wrong_signs()} of {len(SIGN_DRAWS)}"
    found["wrong_signs_told"] = f"{r.wrong_signs(told=True)} of {len(SIGN_DRAWS)}"
    found["wrong_signs_unseen"] = f"{r.wrong_signs(UNSEEN_DRAWS)} of the {len(UNSEEN_DRAWS)}"
    found["wide_pickers"] = over_draws(r.wide_picker(PHYSICS), 3, (0, 1))
    found["wide_pickers_S1"] = over_draws(r.wide_picker(PHYSICS, "S1"), 3, (0, 1))
    found["wide_less_templates_S1"] = over_draws(r.wide_less_templates("S1"), 3)
    found["fine_errors"] = "{} of {:,}".format(*r.matching_errors())
    found["wide_less_fine_S1"] = over_draws(r.wide_less_templates("S1", "_fine"), 3)
    for name, source in (("both", BOTH), ("picker", PHYSICS), ("templates", TEMPLATES), ("best", BEST)):
        found[f"joint_{name}"] = _joined([f"{v:.3f}" for v in r.joint_picker(source)])
    found["wide_less_best"] = over_draws(r.wide_less_best(), 3)
    found["best_templates"] = _joined([f"{v:.3f}" for v in r.best_templates()])
    found["joint_less_templates"] = over_draws(r.joint_less_templates(), 4)
    found["joint_less_templates_each"] = _joined([f"{v:.3f}" for v in r.joint_less_templates()])
    found["joint_less_best"] = over_draws(list(np.subtract(r.joint_picker(BOTH), r.joint_picker(BEST))), 3)
    found["joint_less_fine"] = _joined([f"{v:.3f}" for v in r.joint_less_fine()])
    found["joint_errors"] = "{} of {:,}".format(*r.joint_errors())
    found["wide_pickers_real"] = over_draws(r.wide_picker(REAL), 3, (0, 1))
    found["wide_less_formula"] = _joined([f"{v:.3f}" for v in r.wide_less_formula()])
    found["wide_less_templates"] = over_draws(r.wide_less_templates(), 3)
    found["wide_less_templates_each"] = _joined([f"{v:.3f}" for v in r.wide_less_templates()])
    found |= {"poor_densities": f"{r.lost_by_poor_densities():.3f}", "pickers_apart": f"{r.pickers_apart():.3f}"}
    found["picks_off_centre"] = over_draws(r.lost_by_picks(OFF_CENTRE), 3)
    gained = list(np.subtract(r.lost_by_picks(OFF_CENTRE), r.lost_by_picks(MENDED)))
    found |= {"picks_mended": f"{mean(r.wrong_input(MENDED, PHYSICS)):.3f}", "picks_gained": over_draws(gained, 3)}
    found["picks_gained_each"] = _joined([f"{v:.3f}" for v in gained])
    found |= {"pick_error": f"{100 * r.pick_error():.0f}", "pick_offset": f"{r.pick_offset():.1f}"}
    found |= dict(zip(("authors_off", "authors_found"), (f"{v:.2f}" for v in r.authors_pick_error()), strict=True))
    of_cell = {"hand": PHYSICS, "formula": CTF_WEDGE, "maxima": "strongest density maxima", "moved": "picks, moved"}
    for name, source in of_cell.items():
        found[f"cell_{name}"] = f"{r.hand(source):.1f}"
    found["cell_off_picks"] = f"{r.hand_off_picks():.1f}"
    put_in = {f"_{k}": f"ribosomes put in, {level:g}" for k, level in zip(("weak", "strong"), PUT_IN, strict=True)}
    for name, source in ({"": PHYSICS, "_formula": CTF_WEDGE, "_off": OFF} | put_in).items():
        found[f"left_out{name}"] = _joined([f"{errors:.1f}" for errors in r.half_left_out(source)])
    for name, source in (("picker", PHYSICS), ("picker_real", REAL), ("templates", TEMPLATES)):
        found[f"deepfinder_{name}"] = f"{r.deepfinder_picker(source):.2f}"
    for name, source in (("again", PHYSICS), ("both", BOTH), ("best", BEST), ("own_templates", TEMPLATES)):
        found[f"deepfinder_{name}"] = f"{mean(r.deepfinder_joint(source)):.2f}"
    found["deepfinder_wide"] = f"{r.deepfinder_picker(PHYSICS, wide=True):.2f}"
    found["calibration"] = f"{100 * r.calibration_error():.1f}"
    found["calibration_one_level"] = f"{100 * r.calibration_of_one_level():.1f}"
    evening = PROFILES["evening"].sizes["steps"]
    found |= {"snr_headline": f"{HEADLINE_SNR:g}", "snr_runs": f"{PROFILES[PROFILE].snr['S1']:g}"}
    found |= {"evening_steps": f"{evening:,}"}
    found |= {f"snr_estimated_{dataset}": f"{snr:g}" for dataset, snr in ABLATED.items()}
    found |= {"authors_physics": f"{r.authors(PHYSICS):.1f}", "authors_real": f"{r.authors(REAL):.1f}"}
    found["authors_step"] = f"{r.authors_step():.2f}"
    for name, source in (("authors_physics_each", PHYSICS), ("authors_real_each", REAL)):
        found[name] = " and ".join(f"{v:.1f}" for v in r.authors_each(source))
    found["authors_released"] = f"{r.authors(RELEASED):.1f}"
    for name in ("ribosomes", "deepfinder", "empiar10499", "emd1155", "microtubule"):
        found[f"{name}_angular"] = _joined([f"{ratio:.2f}" for ratio in r.folds(name, "angular")])
    found["downstream_gan_each"] = _joined([f"{v:.1f}" for v in r.downstream(GENERATED)])
    found["microtubule_moments"] = f"{r.folds('microtubule', 'moments')[0]:.0f}"
    for name, source in (("gan", GENERATED), ("ctf", CTF), ("white", WHITE), ("real", REAL), ("physics", PHYSICS)):
        found[f"downstream_{name}"] = over_draws(r.downstream(source), 1, (0, 100))
    for name, source in (("physics", PHYSICS), ("ctf", CTF)):
        found[f"mixed_{name}"] = _joined([f"{v:.1f}" for _, v in sorted(r.mixed(source).items())])
    found["mixed_labels"] = _joined([f"{labels}" for labels in sorted(r.mixed(PHYSICS)) if labels])
    for dataset in ("S1", "S2"):
        found[f"{dataset}_angular"] = over_draws(r.apart_from_real(dataset, "angular"), 1)
        lost = {v.removeprefix("without "): p for v, p in r.lost_without(dataset).items() if abs(p) >= POINTS}
        found[f"{dataset}_lost"] = _joined([f"{p:.1f} without the {part}" for part, p in lost.items()])
    found["ribosomes_apart"] = f"{r.ribosomes_apart():.2f}"
    found["no_wedge_auc"] = f"{r.without('S2', 'without wedge', 'auc'):.2f}"
    found["no_wedge_auc_S1"] = f"{r.without('S1', 'without wedge', 'auc'):.2f}"
    found |= {"sign": f"{r.high_fsc('all'):.2f}", "no_sign": f"{r.high_fsc('without sign'):.2f}"}
    least, most = r.whole_tomograms()
    for name in ("noise", "noise below", "T", "T below", "T beyond"):
        found[f"tomograms_{name.replace(' ', '_')}"] = f"{least[f'{name}, least']:.2f} to {most[f'{name}, most']:.2f}"
    wedge = {"": "in wedge", "_simulator": "simulator's in wedge", "_ratio": "in wedge / simulator's"}
    for name, column in ((f"wedge{of}", column) for of, column in wedge.items()):
        found[f"tomograms_{name}"] = f"{least[column]:.1f} to {most[column]:.1f}"
    shares = sorted(r.mismatched())
    found |= {"mismatch_least": f"{shares[0]:.2f}", "mismatch_median": f"{np.median(shares):.2f}"}
    apart = sum(auc >= APART for auc in r.mismatched_apart())
    found["mismatch_apart"] = f"{apart} of {len(shares)} conditions (AUC of {APART:g} and more)"
    changes, fine = r.fine_voxels()
    found["fine_sign"] = "was found" if changes else "was not found: there generated contrast is wrong"
    for name, source in (("physics", PHYSICS), ("ctf", CTF), ("background", BACKGROUND), ("real", REAL)):
        found[f"fine_{name}"] = f"{fine[source]:.1f}"
    lead = r.mismatched_lead()
    for name, sign in (("won", 1), ("lost", -1)):
        of = [condition for condition, points in lead.items() if sign * points >= POINTS]
        found[f"mismatch_{name}"] = f"{len(of)} ({'; '.join(of)})"
    for name in ("a_homologue", "a_distant_homologue"):
        found |= {f"{name}_{k}": f"{r.homologue(name, s):.1f}" for k, s in (("physics", PHYSICS), ("ctf", CTF))}
    found["homologue_real"] = f"{r.homologue('a_homologue', REAL):.1f}"
    losses = sorted(r.pose_losses())
    found |= {"few": f"{r.few(20):.2f}", "pose_gain": f"{losses[0]:.1f}", "pose_loss": f"{losses[-1]:.1f}"}
    found |= {f"snr_{dataset}": f"{PROFILES['evening'].snr[dataset]:g}" for dataset in ("S1", "S2")}
    return found


def _joined(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def artefacts() -> dict[str, Path]:
    """The record of what each committed figure and table was drawn from, by name."""
    return {path.stem: path for profile in PROFILES for path in (paths.ROOT / "figures" / profile).glob("*.json")}


def drawn_from(name: str) -> str:
    """One sentence on the results behind a figure or table: how many, which data, which code, which commits."""
    record = json.loads(artefacts()[name].read_text())
    results = record.get("results", {})
    if not results:
        return f"Drawn by the code {record['made_by']['code_hash']}."
    commits = sorted({r["provenance"]["commit"] for r in results.values()})
    parts = [f"{len(results)} result{'s' if len(results) > 1 else ''}"]
    for label, key in (("data", "data_hash"), ("code", "code_hash")):
        found = sorted({r[key] for r in results.values() if key in r})
        if found:
            parts.append(f"{label} {found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else ""))
    parts.append(f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}")
    return ", ".join(parts) + (", **older code**." if any(map(is_older, results.values())) else ".")


def glue_all() -> None:
    """Put every number and every origin where the article's text finds it."""
    from myst_nb import glue  # only there where the article is built

    for name, text in numbers().items():
        glue(name, Markdown(text), display=False)
    for name in artefacts():
        glue(f"from_{name}", Markdown(f"<small>{drawn_from(name)}</small>"), display=False)


@lru_cache
def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(artefacts()[name].with_suffix(".csv"), dtype=str, keep_default_na=False)


def table(name: str) -> object:
    """A committed table, without its row numbers."""
    return _table(name).style.hide(axis="index")


def microscopes() -> object:
    """Optics and dose of the simulated microscopes of S1 and S2."""
    columns = {dataset: dataclasses.asdict(DATASETS[dataset].microscope) for dataset in ("S1", "S2")}
    found = pd.DataFrame(columns).rename_axis("setting").reset_index()
    found["setting"] = found["setting"].str.replace("_", " ")
    return found.map(lambda v: f"{v:g}" if isinstance(v, float) else str(v)).style.hide(axis="index")


def settings() -> object:
    """Numbers of the methods, from the code that uses them."""
    probe = {name: p.default for name, p in inspect.signature(train_probe).parameters.items()}
    (small, _), (large, units) = ([_joined([str(c) for c in channels]), unit] for channels, unit in (NARROW, WIDE))
    rows = {
        "small classifier": f"{probe['steps']} steps of {probe['batch']} volumes; {PROBES} of a source, averaged",
        "small picker": f"levels of {small} channels; {STEPS:,} steps of {BATCH} patches, {PATCH} voxels a side",
        "larger picker": f"levels of {large} channels, {units} convolutions a unit; {LONG_STEPS:,} steps",
        "template matching": f"{ROTATIONS} rotations",
        "margin at each face where |T| is measured": f"{FACES:g} of the box",
        "nodes of T from zero to Nyquist": f"{RADII}",
        "smoothness: second difference of |T| between nodes": f"{BEND:g} of its median",
        "a change of sign must gain": f"{SIGN_CHANGE:g} in log likelihood; at a minimum of |T| log of the bands left",
        "signal at most": f"{MOST_SIGNAL:g} of the measured power",
        "empty boxes replace the noise of particles": f"if their distance is at most {CLEARLY:g} of the other",
    }
    return pd.DataFrame({"what": rows.keys(), "value": rows.values()}).style.hide(axis="index")


def claims() -> object:
    """Every claim with what was found: pass, not resolved or FAIL."""
    return claims_table(PROFILE, SEEDS).style.hide(axis="index")
