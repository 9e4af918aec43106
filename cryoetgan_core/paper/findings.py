"""Numbers found from results, by name: what the claims and the article say."""

from collections.abc import Sequence
from math import hypot

import numpy as np
import pandas as pd

from ..evaluation.baselines import BACKGROUND, CTF, FORMULAS
from ..evaluation.downstream import PHYSICS, REAL, TRUE
from ..reproducibility import paths
from ..reproducibility.files import read_json
from .catalogue import compared_draws, results_of
from .cell import MAXIMA, over_tiles
from .cell_left_out import OFF, off_picks
from .competitor import OT_FLOW
from .mismatch import mismatch_names
from .pick_errors import FEW
from .picker import LONG, LONG_TRAINED_ON, SOURCES
from .picker_and_templates import BOTH
from .picking import CTF_WEDGE
from .plan import noise_variant, run_name
from .plotting import audit_table, tomogram_table
from .plotting.operator_tables import accuracy_of
from .proof import HEADLINE_SNR, WHOLE, ablation_names, comparison_names
from .record import is_older
from .template_matching import MIDDLE, TEMPLATES
from .wrong_input import NAMES, NOISE, POOR

NOISE_DRAWS = (0, 1)  # of Table 3
SIGN_DRAWS = tuple(range(9))  # of S2 in which the sign of T beyond the zero of the CTF is looked at
UNSEEN_DRAWS = SIGN_DRAWS[3:]  # those that had not been seen when the rule for the sign was made
FINE_DRAWS = (0,)  # of S2 that the finer template matching was measured on


class Results:
    """The results that claims are about, read once: of some seeds, each a data draw and a training."""

    def __init__(self, profile: str, seeds: Sequence[int]):
        self.profile, self.seeds = profile, list(seeds)
        self._read: dict[tuple[str, str], dict] = {}
        self.used: set[tuple[str, str]] = set()  # profile and name of what was asked for

    def __call__(self, names: Sequence[str], profile: str = "") -> list[dict]:
        profile = profile or self.profile
        missing = [name for name in names if (profile, name) not in self._read]
        if missing:
            self._read |= {(profile, name): r for name, r in results_of(profile, missing).items()}
        self.used |= {(profile, name) for name in names}
        return [self._read[profile, name] for name in names]

    def older(self) -> bool:
        """Whether the code that made one of the results used has changed since."""
        return any(is_older(self._read[key]) for key in self.used)

    def runs(self, dataset: str, preset: str = "adapted") -> list[dict]:
        """Runs of the evening profile, whatever the profile of the other results."""
        return self([run_name(dataset, preset, s) for s in self.seeds], "evening")

    def metric(self, dataset: str, metric: str, preset: str = "adapted", of: str = "metrics") -> list[float]:
        return [r[of][metric] for r in self.runs(dataset, preset)]

    def downstream(self, source: str) -> list[float]:
        """Accuracy on real after training on all volumes of a source alone, one value a draw."""
        values = []
        for result in self([f"downstream_S1_seed{s}" for s in self.seeds]):
            rows = pd.DataFrame(result["rows"])
            own = rows[(rows["source"] == source) & ((rows["synthetic"] == 0) | (rows["real"] == 0))]
            most = own[["synthetic", "real"]].sum(axis=1)
            values.append(float(own.loc[most == most.max(), "accuracy"].mean()))
        return values

    def _comparisons(self, dataset: str) -> list[dict]:
        """Those of Table 7 at HEADLINE_SNR, one a draw."""
        names = comparison_names(self.profile, compared_draws(self.seeds))
        return self([name for name in names if f"_{dataset}_snr{HEADLINE_SNR:g}_" in name])

    def comparison(self, dataset: str, source: str) -> list[float]:
        """The same from the comparisons of Table 7."""
        return [accuracy_of(r, source) for r in self._comparisons(dataset)]

    def shares(self, dataset: str, source: str = PHYSICS) -> list[float]:
        """The same over that of real subtomograms, one value a draw."""
        pairs = zip(self.comparison(dataset, source), self.comparison(dataset, REAL), strict=True)
        return [accuracy / real for accuracy, real in pairs]

    def apart_from_real(self, dataset: str, metric: str) -> list[float]:
        """A metric of the generator's volumes against real test ones, over that of another data set of the simulator;
        one value a draw.
        """
        return list(np.divide(self.apart(dataset, PHYSICS, metric), self.apart(dataset, TRUE, metric)))

    def mixed(self, source: str) -> dict[int, float]:
        """Accuracy on real after training on all volumes of a source and so many real labels of each class, mean over
        draws, from Table 6.
        """
        rows = pd.concat([pd.DataFrame(r["rows"]) for r in self([f"downstream_S1_seed{s}" for s in self.seeds])])
        rows = rows[(rows["source"] == source) & (rows["synthetic"] == rows["synthetic"].max())]
        return rows.groupby("real")["accuracy"].mean().to_dict()

    def lost_without(self, dataset: str) -> dict[str, float]:
        """Points of accuracy on real that are lost without each part of the estimate, from Table 8."""
        own = [r for r in self(ablation_names(self.profile, self.seeds[:1])) if r["config"]["dataset"] == dataset]
        found = {r["variant"]: accuracy_of(r, PHYSICS) for r in own}
        return {variant: found[WHOLE] - accuracy for variant, accuracy in found.items() if variant != WHOLE}

    def ribosomes_apart(self) -> float:
        """AUC of a network that tells many generated ribosomes from the ten of a series that was left out."""
        (r,) = self([f"parts_seed{self.seeds[0]}"])
        return next(row["auc"] for row in r["rows"] if row["data"] == "ribosomes" and not row["without"])

    def strongest(self, dataset: str) -> tuple[str, list[float]]:
        """The best of the formulas and of the formula on real empty boxes, and its `shares`."""
        each = {name: self.shares(dataset, name) for name in (*FORMULAS, BACKGROUND)}
        name = max(each, key=lambda name: mean(each[name]))
        return name, each[name]

    def ahead_of(self, dataset: str, sources: Sequence[str]) -> list[float]:
        """Accuracy of the physics generator less that of the best of some sources, in points, one value a draw."""
        best = max((self.comparison(dataset, source) for source in sources), key=mean)
        return list(np.subtract(self.comparison(dataset, PHYSICS), best))

    def competitor(self) -> list[float]:
        """Accuracy on real (S1) after training on volumes of flow matching, one value a draw."""
        return [accuracy_of(r, OT_FLOW) for r in self([f"competitor_S1_seed{s}" for s in self.seeds])]

    def apart(self, dataset: str, source: str, metric: str) -> list[float]:
        """A metric of a source's volumes against real test ones, from the comparisons of Table 7."""
        return [r["metrics"][source][metric] for r in self._comparisons(dataset)]

    def without(self, dataset: str, variant: str, metric: str) -> float:
        """A metric of a form of the estimate at the first seed, from Table 8."""
        parts = self(ablation_names(self.profile, self.seeds[:1]))
        return mean(
            [
                r["metrics"][PHYSICS][metric]
                for r in parts
                if r["variant"] == variant and r["config"]["dataset"] == dataset
            ]
        )

    def high_fsc(self, variant: str) -> float:
        """FSC of S2's mean generation beyond half of Nyquist, from Table 8."""
        parts = self(ablation_names(self.profile, self.seeds[:1]))
        (curve,) = [r["fsc"] for r in parts if r["variant"] == variant and r["config"]["dataset"] == "S2"]
        return mean(curve[len(curve) // 2 + 1 :])

    def few(self, particles: int) -> float:
        """The generator's share of real, estimated from so many particles."""
        (r,) = self([f"physics_few_seed{self.seeds[0]}"])
        return mean([row["accuracy"] for row in r["rows"] if row["particles"] == particles]) / mean(
            [row["accuracy"] for row in r["real"]]
        )

    def pose_losses(self) -> list[float]:
        """Median angular error of generated particles minus that of real ones in degrees, by class."""
        (r,) = self([f"physics_poses_seed{self.seeds[0]}"])
        errors = [c["median_error_deg"] for c in r["classes"].values()]
        return [round(e["generated"] - e["real"], 1) + 0.0 for e in errors]

    def pickers(self, dataset: str, source: str) -> list[float]:
        """F1 on held-out tomograms of pickers trained on tomograms of one source, or of template matching, one value a
        draw, from Table 19.
        """
        return [mean([scores["f1"] for scores in found]) for found in self._table_19(dataset, source, self.seeds)]

    def _table_19(self, dataset: str, source: str, seeds: Sequence[int]) -> list[list[dict[str, float]]]:
        """Scores of each picker of a source, or of template matching, by draw."""
        kind = {TEMPLATES: "templates_{}", PHYSICS: "picker_{}"}.get(source, "picker_{}_others").format(dataset)
        return [r["scores"][source] for r in self([f"{kind}_seed{s}" for s in seeds])]

    def picker(self, dataset: str, source: str) -> float:
        """The mean of `pickers`."""
        return mean(self.pickers(dataset, source))

    def picker_shares(self, dataset: str, source: str = PHYSICS) -> list[float]:
        """`pickers` over those with real labels, one value a draw."""
        return list(np.divide(self.pickers(dataset, source), self.pickers(dataset, REAL)))

    def strongest_picker(self, dataset: str) -> tuple[str, list[float]]:
        """Of the CTF formula's pickers and template matching the one whose `picker_shares` are larger; and these."""
        sources = (("CTF formula and wedge", CTF_WEDGE), (TEMPLATES, TEMPLATES))
        each = {name: self.picker_shares(dataset, source) for name, source in sources}
        name = max(each, key=lambda name: mean(each[name]))
        return name, each[name]

    def wrong_input(self, condition: str, source: str) -> list[float]:
        """F1 on held-out tomograms of S2 when a picker or template matching is given something else, one value a draw,
        from Table 24.
        """
        results = self([f"wrong_input_S2_{NAMES[condition]}_seed{s}" for s in self.seeds])
        return [r["scores"][source]["f1"] for r in results]

    def lost_by_poor_densities(self) -> float:
        """F1 that a picker loses at most by poor densities, beside the picker of its draw and seed in Table 19."""
        (found,) = self([f"wrong_input_S2_{NAMES[POOR]}_seed{self.seeds[0]}"])
        of = {source: scores["f1"] for source, scores in found["scores"].items() if source != TEMPLATES}
        return max(self._table_19("S2", source, self.seeds[:1])[0][0]["f1"] - f1 for source, f1 in of.items())

    def wrong_signs(self, draws: Sequence[int] = SIGN_DRAWS, told: bool = False) -> int:
        """In how many of some draws of S2 the sign of T is wrong at the highest frequencies, from about 360 particles;
        where the generator is `told` that nobody corrected the CTF, or nothing.
        """
        results = self([f"whole_tomograms_S2{'_uncorrected' * told}_seed{s}" for s in draws])
        return int((tomogram_table(results)["sign of T at Nyquist"] > 0).sum())

    def lost_by_picks(self, condition: str) -> list[float]:
        """F1 that the generator's picker of each draw loses by off-centre picks, beside its seed's in Table 19."""
        right = self._table_19("S2", PHYSICS, self.seeds)
        return [r[0]["f1"] - f1 for r, f1 in zip(right, self.wrong_input(condition, PHYSICS), strict=True)]

    def pick_error(self) -> float:
        """How far the pick error that is found is from what was put in, at most, as a share of it, where that is two
        voxels or more and all particles are used; from Table 25.
        """
        results = self([f"pick_errors_{dataset}_seed{s}" for dataset in ("S1", "S2") for s in self.seeds])
        found = [
            row["found"] / hypot(row["error"], r["rounded"])
            for r in results
            for row in r["rows"]
            if row["error"] >= 2 and row["particles"] > max(FEW)
        ]
        return max(abs(ratio - 1) for ratio in found)

    def authors_pick_error(self) -> tuple[float, float]:
        """How far off centre the authors' particles lie by their file, and are found to, in voxels, from Table 25."""
        (r,) = self([f"authors_pick_error_seed{self.seeds[0]}"])
        return r["rows"][0]["error"], r["rows"][0]["found"]

    def pick_offset(self) -> float:
        """How far from where particles lie on average that place is found along an axis, at most, in voxels, when all
        picks are off alike and all particles are used; from Table 25.
        """
        results = self([f"pick_errors_{dataset}_seed{s}" for dataset in ("S1", "S2") for s in self.seeds])
        return max(
            abs(found - put_in)
            for r in results
            for row in r["offset"]["rows"]
            if row["particles"] > max(FEW)
            for found, put_in in zip(row["found"], r["offset"]["put_in"], strict=True)
        )

    def wide_picker(self, source: str, dataset: str = "S2") -> list[float]:
        """F1 on held-out tomograms of a set of the larger picker of a source, one value a draw, from Table 26."""
        results = self([f"picker_{dataset}_{LONG[source]}_seed{s}" for s in self.seeds])
        return [r["learning_curves"][source][str(LONG_TRAINED_ON)][0]["f1"] for r in results]

    def wide_less_formula(self) -> list[float]:
        """F1 of the generator's larger picker less that of the CTF formula's, in each draw of S2, from Table 26."""
        return list(np.subtract(self.wide_picker(PHYSICS), self.wide_picker(CTF_WEDGE)))

    def wide_less_templates(self, dataset: str = "S2", kind: str = "") -> list[float]:
        """F1 of the generator's larger picker less that of template matching (of `kind` "" or "_fine"), in each draw of
        a set, from Table 26.
        """
        matched = self([f"templates_{dataset}{kind}_seed{s}" for s in self.seeds])
        pairs = zip(self.wide_picker(PHYSICS, dataset), matched, strict=True)
        return [f1 - r["scores"][TEMPLATES][0]["f1"] for f1, r in pairs]

    def templates_less_pickers(self) -> list[float]:
        """F1 on S2 of template matching less that of the best source of small pickers, from Table 19, in each draw."""
        best = max((self.pickers("S2", source) for source in SOURCES), key=mean)
        return list(np.subtract(self.pickers("S2", TEMPLATES), best))

    def joint_picker(self, source: str) -> list[float]:
        """F1 on held-out tomograms of S2 of the generator's larger picker (PHYSICS), of templates by what the generator
        learned (TEMPLATES), or of BOTH, one value a draw, from Table 27.
        """
        return [r["scores"][source]["f1"] for r in self([f"picker_and_templates_S2_seed{s}" for s in self.seeds])]

    def best_templates(self) -> list[float]:
        """F1 on S2 of template matching that is given the CTF parameters, 600 rotations and thresholds from four
        labelled tomograms, one value a draw, from Table 27; the better rule for equally good thresholds, on average.
        """
        matched = self([f"templates_S2_four_seed{s}" for s in self.seeds])
        return max(([r["scores"][rule][0]["f1"] for r in matched] for rule in (TEMPLATES, MIDDLE)), key=mean)

    def wide_less_best(self) -> list[float]:
        """F1 on S2 of the generator's larger picker less `best_templates`."""
        return list(np.subtract(self.wide_picker(PHYSICS), self.best_templates()))

    def joint_less_templates(self) -> list[float]:
        """`joint_picker` of BOTH less `best_templates`."""
        return list(np.subtract(self.joint_picker(BOTH), self.best_templates()))

    def joint_less_fine(self) -> list[float]:
        """The same less the F1 of the finer template matching, in each of FINE_DRAWS."""
        joint = dict(zip(self.seeds, self.joint_picker(BOTH), strict=True))
        matched = self([f"templates_S2_fine_seed{s}" for s in FINE_DRAWS])
        return [joint[s] - r["scores"][TEMPLATES][0]["f1"] for s, r in zip(FINE_DRAWS, matched, strict=True)]

    def joint_errors(self) -> tuple[int, int]:
        """Molecules that BOTH missed or picked falsely, and all molecules, over the draws of Table 27."""
        results = self([f"picker_and_templates_S2_seed{s}" for s in self.seeds])
        return _errors([row for r in results for row in r["rows"] if row["source"] == BOTH])

    def matching_errors(self) -> tuple[int, int]:
        """Molecules of S1 that the finer template matching missed or picked falsely, and all molecules, over all draws;
        from Table 26.
        """
        return _errors([row for r in self([f"templates_S1_fine_seed{s}" for s in self.seeds]) for row in r["rows"]])

    def in_coloured_noise(self) -> tuple[float, float]:
        """F1 on S2 of pickers of the formula with back-projected noise, and of the generator's of the same draws and
        seed, from Tables 24 and 19.
        """
        draws = self.seeds[:2]
        found = self([f"wrong_input_S2_{NAMES[NOISE]}_seed{s}" for s in draws])
        right = [pair[0]["f1"] for pair in self._table_19("S2", PHYSICS, draws)]
        return mean([r["scores"][CTF_WEDGE]["f1"] for r in found]), mean(right)

    def pickers_apart(self) -> float:
        """F1 by which two pickers of a data draw, which differ in their seed alone, differ at most, from Table 19."""
        kinds = [(dataset, source) for dataset in ("S1", "S2") for source in (PHYSICS, CTF_WEDGE, REAL)]
        pairs = [pair for kind in kinds for pair in self._table_19(*kind, self.seeds)]
        return max(abs(one["f1"] - other["f1"]) for one, other in pairs)

    def deepfinder_picker(self, source: str, wide: bool = False) -> float:
        """F1 on DeepFinder's tomograms of pickers trained on tomograms of one source, or of template matching, from
        Table 23.
        """
        kind = "templates" if source == TEMPLATES else f"picker_{LONG[source]}" if wide else "picker"
        (r,) = self([f"deepfinder_{kind}_seed{self.seeds[0]}"])
        return mean([scores["f1"] for scores in r["scores"][source]])

    def deepfinder_joint(self, source: str) -> list[float]:
        """F1 on each of DeepFinder's tomograms of the generator's larger picker and templates together, or of one of
        them, from Table 23.
        """
        names = [f"deepfinder_picker_and_templates_{fold}_seed{self.seeds[0]}" for fold in (0, 1)]
        return [r["scores"][source]["f1"] for r in self(names)]

    def hand(self, source: str) -> float:
        """How much better a ribosome's map fits picks in a cell than its mirror image, in standard errors."""
        (r,) = self([f"cell_seed{self.seeds[0]}"])
        (row,) = [row for row in r["rows"] if row["source"] == source]
        return row["better"] / row["error"]

    def hand_off_picks(self) -> float:
        """The same of density maxima that neither picker picked."""
        (r,) = self([f"cell_seed{self.seeds[0]}"])
        judged = {source: r["slices"][f"judged, {source}"] for source in (PHYSICS, CTF_WEDGE, MAXIMA)}
        picks = [judged[PHYSICS][:, :3], judged[CTF_WEDGE][:, :3]]
        off = off_picks(judged[MAXIMA], picks, r["radius_A"] / r["voxel_size_A"])
        *_, row = over_tiles(judged | {OFF: off}, r["voxel_size_A"], r["config"]["seed"])  # as in Table 21
        return row["better"] / row["error"]

    def half_left_out(self, source: str) -> list[float]:
        """By how much picks prefer the half of a ribosome that they were not aligned to, in the map's hand more than in
        the mirror image, in standard errors: of each half.
        """
        (r,) = self([f"cell_left_out_seed{self.seeds[0]}"])
        rows = [row for row in r["rows"] if row["source"] == source and row["hand"] == "difference"]
        return [row["better"] / row["error"] for row in rows]

    def folds(self, name: str, metric: str) -> list[float]:
        """A distance of generated volumes over that of real from real, by tomogram left out, if there are several."""
        (r,) = self([f"foreign_{name}_seed{self.seeds[0]}"])
        folds = r["folds"].values() if "folds" in r else [r["metrics"]]
        return [f["generated"][metric] / f["real"][metric] for f in folds]

    def foreign_auc(self, name: str) -> float:
        """AUC of a network that tells generated from the tomogram left out, less that for real ones of the others, mean
        over the tomograms left out.
        """
        (r,) = self([f"foreign_{name}_seed{self.seeds[0]}"])
        return mean([f["generated"]["auc"] - f["real"]["auc"] for f in r["folds"].values()])

    def on_real(self, dataset: str, preset: str = "adapted") -> list[float]:
        """Accuracy on real after training on the volumes of a run, one value a draw."""
        return [mean([row["accuracy"] for row in r["downstream"]]) for r in self.runs(dataset, preset)]

    def without_noise(self) -> list[float]:
        """How often the reference classifier reads the labels of volumes of `adapted` that was trained without noise on
        the densities (S1), one value a draw.
        """
        names = [run_name("S1", "adapted", s, noise_variant(0.0)) for s in NOISE_DRAWS]
        return [r["metrics"]["accuracy"] for r in self(names, "evening")]

    def label_read(self, volumes: str) -> float:
        """How often the reference classifier reads the labels of volumes that were changed by hand, from Table 17."""
        (r,) = self([f"labels_S1_seed{self.seeds[0]}"], "evening")
        (found,) = [row["label read"] for row in r["rows"] if row["volumes"] == volumes]
        return found

    def calibration_error(self) -> float:
        """Mean deviation of predicted from real errors, relative to the prediction; larger of S1 and S2."""
        return max(curve["ence"] for curve in self._reliability())

    def calibration_of_one_level(self) -> float:
        """The same where one level, the root mean square of those predicted, stands for all voxels."""
        levels = [(np.array(c["found"]), np.sqrt(np.mean(np.square(c["predicted"])))) for c in self._reliability()]
        return max(float(np.mean(np.abs(errors - level)) / level) for errors, level in levels)

    def _reliability(self) -> list[dict]:
        return [r["reliability"] for r in self([f"spread_{d}_seed{self.seeds[0]}" for d in ("S1", "S2")], "evening")]

    def denoised(self, dataset: str, name: str) -> float:
        """Correlation of what a filter makes of test subtomograms with their densities, mean over classes."""
        (r,) = self([f"denoiser_{dataset}_seed{self.seeds[0]}"], "evening")
        return mean([row["correlation"] for row in r["rows"] if row["filter"] == name])

    def whole_tomograms(self) -> tuple[pd.Series, pd.Series]:
        """Least and most of each column of `tomogram_table` over data draws, of Figure 26."""
        names = [f"whole_tomograms_{dataset}_seed{s}" for dataset in ("S1", "S2") for s in self.seeds]
        table = tomogram_table(self(names))
        return table.min(numeric_only=True), table.max(numeric_only=True)

    def mismatched(self) -> list[float]:
        """The generator's share of real, by condition of Table 11."""
        found = self(mismatch_names(self.profile, self.seeds[0], fine=True))
        return [accuracy_of(r, PHYSICS) / accuracy_of(r, REAL) for r in found]

    def mismatched_apart(self) -> list[float]:
        """AUC of the generator, by condition of Table 11."""
        return [r["metrics"][PHYSICS]["auc"] for r in self(mismatch_names(self.profile, self.seeds[0], fine=True))]

    def fine_voxels(self) -> tuple[bool, dict[str, float]]:
        """Whether the estimated T of S1 in the paper's voxels, in which its CTF has a zero within Nyquist, changes its
        sign; and accuracy on real by source of the training data.
        """
        (r,) = self([f"physics_mismatch_fine-as-recorded_seed{self.seeds[0]}"])
        accuracy = {source: accuracy_of(r, source) for source in (CTF, BACKGROUND, PHYSICS, REAL)}
        return min(r["transfer"]) < 0 < max(r["transfer"]), accuracy

    def mismatched_lead(self) -> dict[str, float]:
        """Accuracy of the generator less that of the CTF formula, in points, by condition of Table 11."""
        found = self(mismatch_names(self.profile, self.seeds[0], fine=True))
        return {r["condition"]: accuracy_of(r, PHYSICS) - accuracy_of(r, CTF) for r in found}

    def homologue(self, name: str, source: str) -> float:
        """Accuracy on real when a homologue's map is given, "a_homologue" or "a_distant_homologue"."""
        (r,) = self([f"foreign_{name}_seed{self.seeds[0]}"])
        return accuracy_of(r, source)

    def authors_each(self, source: str) -> list[float]:
        """Accuracy on the authors' particles of each classifier trained on a source."""
        (result,) = self([f"foreign_authors_seed{self.seeds[0]}"])
        return [row["accuracy"] for row in result["rows"] if row["source"] == source]

    def authors_step(self) -> float:
        """By how many points one test particle moves an accuracy on the authors' particles."""
        (result,) = self([f"foreign_authors_seed{self.seeds[0]}"])
        return float(np.diff(sorted({row["accuracy"] for row in result["rows"]})).min())

    def authors(self, source: str) -> float:
        """The mean of `authors_each`."""
        return mean(self.authors_each(source))

    def client(self, check: str) -> float:
        """Least number of a check with a client's own program, from the committed table of `clients.ipynb`."""
        rows = read_json(paths.reference(self.profile) / "clients.json", "run clients.ipynb again")["rows"]
        (found,) = [row["found"] for row in rows if row["check"].startswith(check)]
        return min(float(number) for number in found.split(" / "))

    def fooled(self, metric: str) -> float:
        """By how many controls a metric is fooled, from the audit."""
        table = audit_table(self([f"audit_S1_seed{self.seeds[0]}"])[0], {}).set_index("metric")
        return float(table.loc[metric, "fooled by"])


def _errors(rows: list[dict]) -> tuple[int, int]:
    """Molecules that were missed or picked falsely, and all molecules, of rows of picks."""
    wrong = sum(row["picks"] + row["molecules"] - 2 * row["right"] for row in rows)
    return wrong, sum(row["molecules"] for row in rows)


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
