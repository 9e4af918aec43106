"""The package's claims as checks: each an inequality on results, evaluated by one command.

python -m cryoetgan_core.paper.claims            # prints the table, and fails where a claim does
python -m cryoetgan_core.paper.claims --readme   # also writes it into README.md, between its marks
"""

import argparse
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from IPython.display import Markdown

from ..config import DATASETS, PROFILES
from ..evaluation.baselines import BACKGROUND, CTF, FORMULAS, WHITE
from ..evaluation.downstream import GENERATED, PHYSICS, REAL, TRUE
from ..evaluation.metrics import student_interval
from ..reproducibility import paths
from .denoiser import FILTERED, RESTORED
from .findings import UNSEEN_DRAWS, Results, mean
from .parameters import choose, parse_seeds
from .picking import CTF_WEDGE
from .plotting import never_named, over_draws
from .results import committed, measured
from .template_matching import TEMPLATES
from .wrong_input import LEARNED, MENDED, NO_CTF, OFF_CENTRE, UNLABELLED

MARKS = ("<!-- claims -->", "<!-- /claims -->")
RELATIONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}


@dataclass(frozen=True)
class Claim:
    """A sentence, the number it rests on, and the inequality that must hold.

    `value` gives the number, or a list with one a data draw, whose mean is judged. `tolerance` says by how much the
    number, in the unit of `quantity`, moved or may move between processors: a claim nearer to its bound than that may
    fail on another. `beside` gives the strongest baseline and its number.
    """

    sentence: str
    artefact: str  # the notebook that shows it
    quantity: str
    value: Callable[[Results], float | list[float]]
    relation: str
    bound: float
    tolerance: float
    digits: int = 1
    headline: bool = False  # shown in the README
    beside: Callable[[Results], tuple[str, float | list[float]]] | None = None


# fmt: off
CLAIMS = (
    Claim("RELION 3.1 reconstructs the reference from files written here",
          "clients", "correlation, noise-free", lambda r: r.client("relion_reconstruct: particles.star, noise-free"),
          ">", 0.99, 0.001, 4, headline=True),
    Claim("The paper's generator draws the molecule too weakly: with half of its signal added more labels are read "
          "(S1)",
          "evening", "labels read, signal times 1.5 - as generated (points)",
          lambda r: r.label_read("signal times 1.5") - r.label_read("as generated"), ">", 5, 5),
    Claim("On particles of the authors' own simulator, on which an earlier version had failed, the physics generator "
          "is nearly as good training data as real ones; besides particles and densities it is given contrast and beam "
          "axis only",
          "foreign_data", "accuracy / real's, mean of two classifiers, few test particles",
          lambda r: r.authors(PHYSICS) / r.authors(REAL), ">", 0.9, 0.05, 2, headline=True,
          beside=lambda r: ("best formula", max(r.authors(s) for s in FORMULAS) / r.authors(REAL))),
    Claim("A network trained to tell the paper's generator from real succeeds every time",
          "table2_metrics", "least AUC, S1 and S2", lambda r: min(r.metric("S1", "auc") + r.metric("S2", "auc")), ">",
          0.95, 0.01, 2, headline=True),
    Claim("Trained without noise on the densities, its labels are read more often than the 76.4 % that the paper "
          "reports (S1; of our own set)",
          "noise_and_loss", "labels read, least of two draws (%)", lambda r: min(r.without_noise()), ">", 76.4,
          10),
    Claim("Trained with noise on the densities, the default, its labels are read less often than that (S1)",
          "table2_metrics", "labels read, most of three draws (%)", lambda r: max(r.metric("S1", "accuracy")), "<",
          76.4, 10),
    Claim("After the same 2,000 steps with the released and the described settings volumes are poor training data "
          "(S1; chance 25)",
          "evening", "accuracy on real, largest of both and of three draws (%)",
          lambda r: max(r.on_real("S1", "released") + r.on_real("S1", "described")), "<", 70, 10),
    Claim("Volumes that are poor training data get a perfect 1 on the paper's metric precision (S1)",
          "table2_metrics", "least precision with the released settings",
          lambda r: min(r.metric("S1", "precision", "released")), ">", 0.95, 0.02, 2),
    Claim("The cycle loss of the *adapted* settings ends above that of a constant volume: F(G(x)) does not return x",
          "figures_1_to_4", "cycle loss at the end / constant's, least of S1's draws",
          lambda r: min(run["log"][-1]["cycle_x"] / run["constant_cycle"] for run in r.runs("S1")), ">", 1.0, 0.1, 2),
    Claim("The spread of generations predicts the size of errors, but no better than one level for all voxels "
          "(Figure 18)",
          "figures_1_to_4", "mean deviation of error from prediction, larger of S1 and S2",
          lambda r: r.calibration_error(), "<", 0.1, 0.02, 3,
          beside=lambda r: ("one level for all voxels", r.calibration_of_one_level())),
    Claim("Precision, density and coverage in raw voxels give grossly wrong volumes a good score",
          "metric_audit", "wrong sets that get a good score, of the best of the three",
          lambda r: min(r.fooled(m) for m in ("precision", "density", "coverage")), ">=", 1, 0, 0),
    Claim("FID, the power spectrum over tilt, and a network trained to tell real from generated give no "
          "grossly wrong volumes a good score",
          "metric_audit", "wrong sets that get a good score, of the worst of the three",
          lambda r: max(r.fooled(m) for m in ("fid", "angular", "auc")), "=", 0, 0, 0),
    Claim("After two minutes (120 steps) the paper's generator is better training data than density + "
          "white noise, on average (S1, SNR 0.1)",
          "training_data", "accuracy on real, difference of means (points)",
          lambda r: list(np.subtract(r.downstream(GENERATED), r.downstream(WHITE))), ">", 0, 30),
    Claim("After two minutes the paper's generator is worse training data than the CTF formula, on average (S1, SNR "
          "0.1)",
          "training_data", "accuracy on real, CryoETGAN - CTF formula",
          lambda r: list(np.subtract(r.downstream(GENERATED), r.downstream(CTF))), "<", -5, 5),
    Claim("A classifier trained on the physics generator alone is nearly as good as one trained on real (S1, SNR "
          "0.05)",
          "training_data", "accuracy / real's",
          lambda r: r.shares("S1"), ">", 0.93, 0.03, 3, headline=True, beside=lambda r: r.strongest("S1")),
    Claim("A classifier trained on the physics generator alone is nearly as good as one trained on real "
          "(S2, SNR 0.05)",
          "training_data", "accuracy / real's",
          lambda r: r.shares("S2"), ">", 0.90, 0.05, 3, headline=True, beside=lambda r: r.strongest("S2")),
    Claim("On S1 the physics generator is about as good training data as the best formula",
          "training_data", "accuracy - best formula's, SNR 0.05 (points)",
          lambda r: r.ahead_of("S1", FORMULAS), ">", -2, 3),
    Claim("A small picker trained on three generated tomograms alone picks as well as one trained on three with real "
          "labels (S1)",
          "training_data", "F1 / real's", lambda r: r.picker_shares("S1"), ">", 0.95, 0.03, 2,
          beside=lambda r: r.strongest_picker("S1")),
    Claim("A small picker trained on three generated tomograms alone picks as well as one trained on three with real "
          "labels; the generator is given the densities, where particles are in four tomograms, and how many of each "
          "class (S2)",
          "training_data", "F1 / real's", lambda r: r.picker_shares("S2"), ">", 0.95, 0.03, 2, headline=True,
          beside=lambda r: r.strongest_picker("S2")),
    Claim("The CTF formula with the wedge, given the CTF parameters and the SNR, makes tomograms that "
          "train pickers nearly as well",
          "training_data", "F1, generated - formula, larger of S1 and S2",
          lambda r: max(
              (list(np.subtract(r.pickers(d, PHYSICS), r.pickers(d, CTF_WEDGE))) for d in DATASETS), key=mean),
          "<", 0.05, 0.02, 3),
    Claim("On S2, template matching with the same densities is ahead of all pickers trained on three tomograms",
          "training_data", "F1, template matching - the best picker's, S2",
          lambda r: r.templates_less_pickers(), ">", 0.03, 0.03, 2),
    Claim("Larger pickers that see many generated tomograms and keep their picks apart are better (S2)",
          "training_data", "F1, larger - three tomograms",
          lambda r: list(np.subtract(r.wide_picker(PHYSICS), r.pickers("S2", PHYSICS))), ">", 0.04, 0.03, 3),
    Claim("Larger pickers trained on many generated tomograms are slightly better than template matching, which is "
          "given 2,400 rotations, the CTF parameters and thresholds from four labelled tomograms (S1; of equally "
          "good thresholds the lowest is taken, which adds false picks to template matching; of other larger pickers "
          "only one with real labels was measured there: like the generator's it makes no error)",
          "training_data", "F1, larger - template matching", lambda r: r.wide_less_templates("S1", "_fine"), ">", 0,
          0.01, 3),
    Claim("Larger pickers trained on many generated tomograms come close to template matching, which is "
          "given the CTF parameters and thresholds from four labelled tomograms (S2)",
          "training_data", "F1, larger - template matching", lambda r: r.wide_less_best(), ">", -0.02, 0.01, 3),
    Claim("A larger picker trained on generated tomograms and templates seen through the generator, taken together, "
          "are ahead of template matching with as many rotations, which is given the CTF parameters and thresholds "
          "from four labelled tomograms (S2; none of the draws is blind)",
          "training_data", "F1, both - template matching", lambda r: r.joint_less_templates(), ">", 0, 0.01, 4,
          headline=True),
    Claim("Larger pickers trained on generated tomograms pick as well as those trained on as many with real labels "
          "(S2)",
          "training_data", "F1 / real's",
          lambda r: list(np.divide(r.wide_picker(PHYSICS), r.wide_picker(REAL))), ">", 0.95, 0.03, 2,
          beside=lambda r: (TEMPLATES, list(np.divide(r.best_templates(), r.wide_picker(REAL))))),
    Claim("Larger pickers trained on generated tomograms are better than those trained on as many by the CTF formula "
          "and wedge with white noise (S2)",
          "training_data", "F1, generated - formula", lambda r: r.wide_less_formula(), ">", 0, 0.02, 3),
    Claim("Template matching needs no CTF parameters: with the transfer function and noise that the "
          "generator estimated from picked particles it is as good (S2; thresholds from a labelled "
          "tomogram)",
          "training_data", "F1, by the generator's - by the true CTF",
          lambda r: list(np.subtract(r.wrong_input(LEARNED, TEMPLATES), r.pickers("S2", TEMPLATES))), ">", -0.02,
          0.01, 3),
    Claim("Template matching without a CTF is nearly as good (S2)",
          "training_data", "F1, without - with the true CTF",
          lambda r: list(np.subtract(r.wrong_input(NO_CTF, TEMPLATES), r.pickers("S2", TEMPLATES))), ">", -0.02, 0.01,
          3),
    Claim("Template matching with thresholds from a generated tomogram needs no class labels, and is "
          "still ahead of the generator's small pickers (S2; both know where particles are in four "
          "tomograms, and how many of each class)",
          "training_data", "F1, template matching - generated, S2",
          lambda r: list(np.subtract(r.wrong_input(UNLABELLED, TEMPLATES), r.pickers("S2", PHYSICS))), ">", 0.02,
          0.03, 3),
    Claim("How far off centre picks are can be estimated from the particles",
          "training_data", "|estimated / true - 1|, most of S1 and S2 at two and three voxels",
          lambda r: r.pick_error(), "<", 0.25, 0.05, 2),
    Claim("Where all picks share one offset, it can be estimated (one direction tried)",
          "training_data", "|estimated - true|, most of S1 and S2, about 360 particles (voxels)",
          lambda r: r.pick_offset(), "<", 0.5, 0.1, 2),
    Claim("Off-centre picks (two voxels) cost the generator's pickers (S2)",
          "training_data", "F1 lost", lambda r: r.lost_by_picks(OFF_CENTRE), ">", 0.03, 0.02, 3),
    Claim("With densities moved as far as the picks are estimated to lie, pickers lose less (S2)",
          "training_data", "F1, moved - as drawn",
          lambda r: list(np.subtract(r.lost_by_picks(OFF_CENTRE), r.lost_by_picks(MENDED))), ">", 0.02, 0.02, 3),
    Claim("On DeepFinder's tomograms a small picker trained on seven generated ones, with thresholds from an eighth, "
          "is not clearly worse than one trained on the other tomogram's labels, with a threshold of one half",
          "foreign_data", "F1 / real's", lambda r: r.deepfinder_picker(PHYSICS) / r.deepfinder_picker(REAL), ">", 0.8,
          0.2, 2,
          beside=lambda r: (TEMPLATES, r.deepfinder_picker(TEMPLATES) / r.deepfinder_picker(REAL))),
    Claim("On DeepFinder's tomograms template matching is ahead of small pickers",
          "foreign_data", "F1, template matching - generated",
          lambda r: r.deepfinder_picker(TEMPLATES) - r.deepfinder_picker(PHYSICS), ">", 0.05, 0.1, 2),
    Claim("On DeepFinder's tomograms larger pickers that see many generated tomograms are far better than small ones",
          "foreign_data", "F1, larger - small",
          lambda r: r.deepfinder_picker(PHYSICS, wide=True) - r.deepfinder_picker(PHYSICS), ">", 0.05, 0.1, 2),
    Claim("On S2 the physics generator is clearly better training data than the best formula with simulated noise",
          "training_data", "accuracy - best formula's, SNR 0.05 (points)",
          lambda r: r.ahead_of("S2", FORMULAS), ">", 4, 5),
    Claim("In their power spectrum over tilt, generated ribosomes differ from those of a left-out experimental series "
          "about as much as those of the other series do (ten particles a series; the generator was changed after an "
          "earlier version had failed on them)",
          "foreign_data", "distance of spectra over tilt / that between real series, largest of three",
          lambda r: max(r.folds("ribosomes", "angular")), "<", 1.5, 0.1, 2, headline=True),
    Claim("A network tells generated ribosomes from that series about as often as ribosomes of the "
          "other series (ten of each, so a weak test)",
          "foreign_data", "AUC, generated - other series, mean of three", lambda r: r.foreign_auc("ribosomes"), "<",
          0.1, 0.15, 2),
    Claim("In an experimental tomogram of a cell, without labels, the picks of a picker trained on "
          "generated tomograms fit a ribosome's map better than its mirror image, as ribosomes would (a stricter test, "
          "with half of the map left out, gives only weak evidence)",
          "foreign_data", "difference of correlations / its standard error", lambda r: r.hand(PHYSICS), ">", 5, 3, 1,
          headline=True, beside=lambda r: ("the CTF formula's picker", r.hand(CTF_WEDGE))),
    Claim("The strongest density maxima of that cell fit the map better than its mirror image, too",
          "foreign_data", "the same", lambda r: r.hand("strongest density maxima"), ">", 3, 3, 1),
    Claim("Density maxima that are no picks fit neither the map nor its mirror image clearly better",
          "foreign_data", "the same, without its sign", lambda r: abs(r.hand_off_picks()), "<", 3, 1, 1),
    Claim("With other optics, filtered particles, bad picks or poor densities the physics generator keeps most of the "
          "accuracy of real labels (S1; the limit was 0.85 before poor densities were measured again on another "
          "processor)",
          "physics_measurements", "accuracy / real's, least of 22 conditions (two of them as recorded)",
          lambda r: min(r.mismatched()), ">", 0.8, 0.04, 2),
    Claim("Twenty particles sufficed to estimate the physics generator (S1, one data set; the CTF has no zero within "
          "Nyquist there, and from so few particles the sign beyond a zero is not estimated)",
          "physics_measurements", "accuracy / real's", lambda r: r.few(20), ">", 0.85, 0.05, 2),
    Claim("In a search round the true pose generated particles align no worse than real ones (S1, SNR 0.1, one data "
          "set; TRiC and membranes, of high symmetry, are hardly aligned, real or generated)",
          "physics_measurements", "median error, generated - real (degrees), worst class",
          lambda r: max(r.pose_losses()), "<", 1.5, 1, 1),
    Claim("Adversarial training of the physics generator, tried and removed, did not help (earlier code)",
          "physics_measurements", "accuracy, trained - estimated only, mean of those of 18 conditions in which "
          "training was chosen on held-out particles (points)",
          lambda r: mean([
              r["chosen"] - r["estimate"] for r in committed("physics_training_earlier_code")["rows"]
              if r["chosen"] != r["estimate"]
          ]),
          "<", 1, 0.5, 2),
    Claim("A small network trained to tell the physics generator's volumes from real ones hardly can (SNR 0.05; weak "
          "evidence on S1, where a generator without the missing wedge has a low AUC, too; mean power spectra do tell "
          "them apart)",
          "training_data", "AUC, larger of S1 and S2; 0.5 is not told apart",
          lambda r: max((r.apart(d, PHYSICS, "auc") for d in DATASETS), key=mean), "<", 0.65, 0.05, 2, headline=True),
    Claim("The mean power spectrum over tilt tells the physics generator's volumes from real ones (SNR 0.05)",
          "training_data", "its distance / that of another data set of the simulator, smaller of S1 and S2",
          lambda r: min((r.apart_from_real(d, "angular") for d in DATASETS), key=mean), ">", 1, 0.3, 2),
    Claim("Generated particles have little more power in the missing wedge than real ones (SNR 0.05; "
          "earlier versions had far too much)", "training_data", "power in the wedge / real's, larger of S1 and S2",
          lambda r: max((r.apart(d, PHYSICS, "wedge_power") for d in DATASETS), key=mean), "<", 1.2, 0.1, 2),
    Claim("In whole generated tomograms the noise in the missing wedge is a few times too strong, but weak",
          "physics_measurements", "in % of that outside; largest of S1 and S2, three draws each",
          lambda r: float(r.whole_tomograms()[1]["in wedge"]), "<", 3, 1, 1,
          beside=lambda r: ("the simulator's", float(r.whole_tomograms()[1]["simulator's in wedge"]))),
    Claim("Below the lowest frequency of a particle's box the noise of whole generated tomograms is several times too "
          "strong (SNR 0.05)",
          "physics_measurements", "power of the noise / simulator's, largest of S1 and S2, three draws each",
          lambda r: float(r.whole_tomograms()[1]["noise below, most"]), ">", 3, 3),
    Claim("A network of the same kind does not tell another data set of the simulator from real",
          "training_data", "AUC of another real draw, larger of S1 and S2",
          lambda r: max((r.apart(d, TRUE, "auc") for d in DATASETS), key=mean), "<", 0.6, 0.05, 2),
    Claim("A network of the same kind detects a generator without the missing wedge (S2)",
          "physics_measurements", "AUC without it", lambda r: r.without("S2", "without wedge", "auc"), ">", 0.95,
          0.03, 2),
    Claim("From about 360 particles at SNR 0.05 the sign of T beyond the zero of the CTF is often wrong (S2)",
          "physics_measurements", "draws, of six that had not been seen when the rule was made",
          lambda r: r.wrong_signs(UNSEEN_DRAWS), ">=", 1, 1, 0),
    Claim("Told that nobody corrected the CTF, the generator has the right sign of T beyond its zero (S2, SNR 0.05, "
          "about 360 particles)",
          "physics_measurements", "draws with the wrong sign, of nine", lambda r: r.wrong_signs(told=True), "<", 1, 1,
          0, beside=lambda r: ("told nothing", r.wrong_signs())),
    Claim("The sign of T beyond a zero of the CTF is found (S2, SNR 0.1; the first data set, on which the rule was "
          "made)",
          "physics_measurements", "FSC beyond half of Nyquist, with it - without it",
          lambda r: r.high_fsc("all") - r.high_fsc("without sign"), ">", 0.3, 0.1, 2),
    Claim("Density times the true CTF and wedge, added to real empty boxes, is not better training data "
          "than the physics generator, which is given neither (S2)",
          "training_data", "accuracy, generator - formula, SNR 0.05 (points)",
          lambda r: r.ahead_of("S2", (BACKGROUND,)), ">", -2, 4),
    Claim("Trained for 2,000 steps (20 minutes of a core; made on a GPU) the paper's generator is as good training "
          "data as the CTF formula on S1, SNR 0.1",
          "evening", "accuracy on real, CryoETGAN - CTF formula (points)",
          lambda r: list(np.subtract(r.on_real("S1"), r.downstream(CTF))), ">", -3, 3, headline=True),
    Claim("On S2, SNR 0.2, its labels are read more often than the 67.3 % that the paper reports on particles that "
          "were never released",
          "table2_metrics", "labels read, least of three draws (%)", lambda r: min(r.metric("S2", "accuracy")), ">",
          67.3, 10),
    Claim("The paper's generator shows no sign of copying training particles: on average its volumes lie hardly nearer "
          "to them than fresh ones (S1)",
          "table2_metrics", "nearest-train share - that of another real draw",
          lambda r: mean(r.metric("S1", "nearest_train")) - mean(r.metric("S1", "nearest_train", of="floor")), "<",
          0.25, 0.1, 2),
    Claim("The inverse generator F, after 2,000 steps, denoises worse than a Gaussian filter",
          "evening", "correlation with the density, F(y) - Gaussian filter, larger of S1 and S2",
          lambda r: max(r.denoised(d, RESTORED) - r.denoised(d, FILTERED) for d in ("S1", "S2")), "<", 0, 0.05, 2),
    Claim("`make figures` takes under an hour on two cores",
          "benchmarks", "minutes: its jobs' processor time over two cores",
          lambda r: sum(job["processor_s"] for job in measured(r.profile, "benchmark_figures", dict)["jobs"]) / 120,
          "<", 60, 30, 0),
    Claim("Of every class of S2 at least one generated volume is named as it was asked for",
          "table2_metrics", "classes never named in a run, most of the draws",
          lambda r: max(map(len, never_named({str(k): v for k, v in enumerate(r.runs("S2"))}).values()), default=0),
          "=", 0, 1, 0),
)
# fmt: on


def claims_table(profile: str, seeds: Sequence[int], artefact: str = "") -> pd.DataFrame:
    """Every claim, or those that a notebook shows, with what was found, and the verdict: "pass", "FAIL", "not resolved"
    (the mean meets the limit, but its 95 % interval over draws includes it), or "pass, near the limit" (nearer than the
    claim's tolerance).
    """
    results, rows = Results(profile, seeds), []
    for claim in CLAIMS:
        if artefact not in ("", claim.artefact):
            continue
        results.used.clear()
        values = _listed(claim.value(results))
        held = RELATIONS[claim.relation](mean(values), claim.bound)
        _, low, high = student_interval(values)
        outcome = "FAIL" if not held else "not resolved" if low < claim.bound < high else "pass"
        nearest = min((mean(values), low, high), key=lambda v: abs(v - claim.bound))  # interval's ends: NaN of one draw
        if outcome == "pass" and abs(nearest - claim.bound) < claim.tolerance:
            outcome = "pass, near the limit"
        name, beside = claim.beside(results) if claim.beside else ("", [])
        rows.append(
            {
                "claim": claim.sentence,
                "notebook": claim.artefact,
                "quantity": claim.quantity,
                "found": over_draws(values, claim.digits),
                "must be": f"{claim.relation} {claim.bound:g}",
                "strongest baseline": f"{over_draws(_listed(beside), claim.digits)} ({name})" if name else "",
                "between processors": f"{claim.tolerance:g}",
                "result": outcome + (", older code" if results.older() else ""),
            }
        )
    return pd.DataFrame(rows)


def _listed(value: float | list[float]) -> list[float]:
    return [float(v) for v in value] if isinstance(value, list) else [float(value)]


def verdict(artefact: str) -> Markdown:
    """What a notebook's results say, before they are shown: its claims on the committed results."""
    table = claims_table("quick", (0, 1, 2), artefact)
    return Markdown(as_markdown(table[["claim", "quantity", "found", "must be", "strongest baseline", "result"]]))


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """Those rows of `claims_table` that the README shows."""
    return table[[claim.headline for claim in CLAIMS]]


def as_markdown(table: pd.DataFrame) -> str:
    """The table for README.md."""
    lines = [
        " | ".join(map(str, row))
        for row in (table.columns, ["---"] * len(table.columns), *table.itertuples(index=False))
    ]
    return "\n".join(f"| {line} |" for line in lines)


def write_readme(table: pd.DataFrame) -> None:
    """Put the table between its marks in README.md."""
    path = paths.ROOT / "README.md"
    before, rest = path.read_text().split(MARKS[0])
    path.write_text(f"{before}{MARKS[0]}\n{as_markdown(headlines(table))}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


def main() -> int:
    """Print the table; 1 where a claim fails."""
    parser = argparse.ArgumentParser(description="Evaluate every claim of the package on its results.")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--seeds", default="0 1 2", help="data draws and trainings, e.g. '0 1 2'")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md, too")
    given = parser.parse_args()
    choose("profile", given.profile, PROFILES)
    table = claims_table(given.profile, parse_seeds(given.seeds))
    for row in table.itertuples(index=False):
        print(f"{row.result:4}  {row.found:>8} {row[4]:8}  {row.claim} ({row.quantity}; {row.notebook})")
    failed, open_ = (int(table["result"].str.startswith(w).sum()) for w in ("FAIL", "not resolved"))
    print(f"{len(table)} claims: {len(table) - failed - open_} pass, {open_} not resolved, {failed} fail")
    if given.readme:
        write_readme(table)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
