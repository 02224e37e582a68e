"""Co-activation, selection, co-expression, mediation and interactions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from scircuit.analysis.coactivation import coactivation
from scircuit.analysis.coexpression import coexpression, pair_correlations
from scircuit.analysis.interactions import interactions
from scircuit.analysis.mediation import candidate_mediators, mediation
from scircuit.analysis.nodes import NodeIndex
from scircuit.analysis.selection import selection, source_table
from scircuit.circuits.schema import ENDS
from scircuit.circuits.synthetic import planted_circuit
from scircuit.errors import ScircuitError


@pytest.fixture(scope="module")
def circuit():
    return planted_circuit(n_latents=60, n_sources=25, n_directions=0, term_affinity=0, seed=6).circuit


def every_pair(circuit, pmi):
    source = circuit.nodes[circuit.nodes["is_source"]][["layer", "feature"]]
    pairs = source.merge(circuit.nodes[["layer", "feature"]], how="cross", suffixes=("_s", "_t"))
    pairs = pairs[pairs["layer_s"] < pairs["layer_t"]]
    pairs.columns = ENDS
    return pairs.assign(pmi=pmi(pairs))


class TestCoactivation:
    def test_pmi_without_relation_has_area_one_half(self, circuit):
        rng = np.random.default_rng(0)
        auc = coactivation(circuit, every_pair(circuit, lambda p: rng.standard_normal(len(p))))["auc"]
        assert auc.low < 0.5 < auc.high
        assert auc.p_value > 0.01

    def test_pmi_that_knows_the_edges_has_area_one(self, circuit):
        edges = pd.MultiIndex.from_frame(circuit.edges[ENDS])
        pairs = every_pair(circuit, lambda p: pd.MultiIndex.from_frame(p).isin(edges) * 2.0 - 1)
        result = coactivation(circuit, pairs)
        assert result.estimate == 1
        assert result["share_pmi_above_0"].estimate == 1
        assert result["share_pmi_above_0"].null == 0

    def test_pmi_that_only_knows_firing_rates_scores_nothing(self, circuit):
        """Edges prefer frequent targets and PMI follows frequency: matching must take that away."""
        rng = np.random.default_rng(1)
        index = NodeIndex.of(circuit.nodes)
        rank = circuit.nodes.groupby("layer")["frequency"].rank(pct=True).to_numpy()
        often = circuit.edges[rng.random(len(circuit.edges)) < rank[index.targets(circuit.edges)] ** 2]
        tilted = replace(circuit, edges=often)
        bins = np.floor(rank * 3)
        pairs = every_pair(circuit, lambda p: bins[index.targets(p)] + rng.standard_normal(len(p)))
        naive = [(pairs["pmi"].to_numpy()[None] < own).mean() for own in often.merge(pairs, on=ENDS)["pmi"].to_numpy()]
        assert np.mean(naive) > 0.6
        assert coactivation(tilted, pairs).estimate == pytest.approx(0.5, abs=0.06)

    def test_absent_pairs_rank_last(self, circuit):
        edges = circuit.edges[ENDS].assign(pmi=-5.0)
        assert coactivation(circuit, edges).estimate == 1
        assert coactivation(circuit, edges.iloc[:0]).estimate == 0.5

    def test_missing_column(self, circuit):
        with pytest.raises(ScircuitError, match="lacks pmi"):
            coactivation(circuit, circuit.edges[ENDS])


class TestSelection:
    def test_a_preference_for_frequent_latents_is_not_an_effect_of_annotation(self, circuit):
        """Edges per source follow the firing rate; annotated sources are merely the frequent ones."""
        rng = np.random.default_rng(0)
        nodes = circuit.nodes
        chance = nodes["frequency"].rank(pct=True)
        annotated = rng.random(len(nodes)) < chance**2
        index = NodeIndex.of(nodes)
        keep = rng.random(len(circuit.edges)) < chance.to_numpy()[index.sources(circuit.edges)] ** 2
        tilted = replace(circuit, nodes=nodes.assign(n_terms=annotated.astype("int32")), edges=circuit.edges[keep])
        result = selection(tilted)
        raw = result["edges_per_1000_tests_unmatched_difference"].estimate
        matched = result["edges_per_1000_tests_difference"]
        assert raw > 8
        assert abs(matched.estimate) < raw / 2
        assert matched.low < 0 < matched.high

    def test_two_circuits(self, circuit):
        annotated = replace(circuit, nodes=circuit.nodes.assign(n_terms=1))
        result = selection(annotated, random=circuit)
        for number in ("edges_per_1000_tests", "supporting_share", "mean_abs_d"):
            assert result[f"{number}_difference"].estimate == pytest.approx(0, abs=1e-9)

    def test_source_table_counts(self, circuit):
        table = source_table(circuit)
        assert len(table) == 75
        assert table["n_edges"].sum() == len(circuit.edges)
        assert table["n_tests"].sum() == circuit.provenance["n_tests"]
        assert table["n_falling"].sum() == (circuit.edges["mean_delta"] < 0).sum()

    def test_nothing_to_compare(self, circuit):
        with pytest.raises(ScircuitError, match="75 of 75"):
            selection(replace(circuit, nodes=circuit.nodes.assign(n_terms=1)))


class TestCoexpression:
    def tables(self, circuit, slope, seed=0):
        rng = np.random.default_rng(seed)
        n = len(circuit.edges)
        gene, latent = rng.uniform(-1, 1, n), rng.uniform(-1, 1, n)
        latent = 0.6 * gene + 0.4 * latent
        d = 1 + slope * np.abs(gene) + 0.2 * rng.standard_normal(n)
        edges = circuit.edges.assign(cohens_d=d)
        return replace(circuit, edges=edges), edges[ENDS].assign(gene_r=gene, latent_r=latent)

    def test_agrees_with_statsmodels(self, circuit):
        tilted, correlations = self.tables(circuit, 0.3)
        result = coexpression(tilted, correlations)
        x = np.abs(correlations[["gene_r", "latent_r"]].to_numpy())
        y = tilted.edges["cohens_d"].to_numpy()
        fit = sm.OLS(y, sm.add_constant(x)).fit()
        assert result["r_squared"].estimate == pytest.approx(fit.rsquared, rel=1e-6)
        rest = [sm.OLS(v, sm.add_constant(x[:, 1])).fit().resid for v in (y, x[:, 0])]
        assert result["partial_gene_r"].estimate == pytest.approx(np.corrcoef(*rest)[0, 1], rel=1e-6)
        assert result["marginal_latent_r"].estimate == pytest.approx(np.corrcoef(y, x[:, 1])[0, 1], rel=1e-6)
        assert result["r_squared"].low < fit.rsquared < result["r_squared"].high

    def test_unrelated_correlations_explain_what_chance_does(self, circuit):
        result = coexpression(*self.tables(circuit, 0.0))
        assert result["r_squared"].estimate < 10 * result["r_squared"].null
        assert result["partial_gene_r"].low < 0 < result["partial_gene_r"].high

    def test_predictors_that_are_one_have_no_partial_correlation(self, circuit):
        tilted, correlations = self.tables(circuit, 0.3)
        result = coexpression(tilted, correlations.assign(latent_r=correlations["gene_r"] / 2), draws=20)
        assert np.isnan(result["partial_gene_r"].estimate)
        assert result["marginal_gene_r"].low > 0

    def test_range_restriction_is_undone(self):
        """Thorndike: cutting a bivariate normal at a threshold and correcting gives the whole
        correlation back."""
        from scircuit.analysis.coexpression import _unrestricted

        rng = np.random.default_rng(0)
        x = rng.standard_normal(200_000)
        y = 0.5 * x + np.sqrt(0.75) * rng.standard_normal(len(x))
        cut = y > 0.7
        r_squared = np.corrcoef(x[cut], y[cut])[0, 1] ** 2
        assert r_squared < 0.15
        assert _unrestricted(r_squared, y.std() / y[cut].std()) == pytest.approx(0.25, abs=0.01)

    def test_correction_appears_when_the_spread_of_all_tests_is_known(self, circuit):
        tilted, correlations = self.tables(circuit, 0.3)
        names = set(coexpression(tilted, correlations).measures["measure"])
        assert "r_squared_corrected" not in names
        tests = tilted.tests.assign(n_sized=tilted.tests["n_tests"], sum_abs_d=0.0, sum_sq_d=0.0)
        tests.loc[tests.index[0], ["n_tests", "sum_abs_d", "sum_sq_d"]] = [0, 0.0, float(tests["n_tests"].sum())]
        from_tests = coexpression(replace(tilted, tests=tests), correlations)
        known = np.sqrt(tests["sum_sq_d"].sum() / tests["n_sized"].sum())
        given = coexpression(tilted, correlations, unrestricted_sd=known)
        assert from_tests["r_squared_corrected"].estimate == given["r_squared_corrected"].estimate
        assert given["r_squared_corrected"].estimate > given["r_squared"].estimate

    def test_pair_correlations_are_pearson(self, circuit):
        from scipy import sparse

        rng = np.random.default_rng(1)
        genes = sorted({g for row in circuit.nodes["top_genes"] for g in row})
        expression = rng.poisson(1.0, (90, len(genes))).astype(float)
        activations = {layer: rng.random((90, 60)) for layer in range(4)}
        table = pair_correlations(circuit, expression, genes, activations)
        pd.testing.assert_frame_equal(
            table, pair_correlations(circuit, sparse.csr_array(expression), genes, activations)
        )
        scores = (expression - expression.mean(0)) / expression.std(0)
        top = circuit.nodes.set_index(["layer", "feature"])["top_genes"]
        for row in table.iloc[:20].itertuples():
            ends = (row.source_layer, row.source_feature), (row.target_layer, row.target_feature)
            score = [scores[:, [genes.index(g) for g in top[end]]].mean(axis=1) for end in ends]
            assert row.gene_r == pytest.approx(np.corrcoef(*score)[0, 1])
            active = [activations[layer][:, feature] for layer, feature in ends]
            assert row.latent_r == pytest.approx(np.corrcoef(*active)[0, 1])
        assert pair_correlations(circuit, expression, genes)["latent_r"].isna().all()
        with pytest.raises(ScircuitError, match="symbols"):
            pair_correlations(circuit, expression, [f"ENSG{i}" for i in range(len(genes))])

    def test_refusals(self, circuit):
        with pytest.raises(ScircuitError, match="pair_correlations"):
            coexpression(circuit, circuit.edges[ENDS])
        few = circuit.edges[ENDS].iloc[:5].assign(gene_r=0.1, latent_r=0.2)
        with pytest.raises(ScircuitError, match="at least 10"):
            coexpression(circuit, few)


class TestMediation:
    def far_edges(self, circuit):
        return circuit.edges[circuit.edges["target_layer"] - circuit.edges["source_layer"] > 1].iloc[:60]

    def test_candidates_lie_on_two_edges(self, circuit):
        d = circuit.edges.set_index(ENDS)["cohens_d"]
        table = candidate_mediators(circuit, self.far_edges(circuit), top=3)
        for ends, rows in table.groupby(ENDS):
            scores = {}
            for layer, feature in circuit.nodes[["layer", "feature"]].itertuples(index=False):
                first, second = (*ends[:2], layer, feature), (layer, feature, *ends[2:])
                if first in d.index and second in d.index:
                    scores[(layer, feature)] = abs(d[first] * d[second])
            best = sorted(scores.values(), reverse=True)[:3]
            own = rows[rows["kind"] == "mediator"]
            np.testing.assert_allclose(sorted(own["score"], reverse=True), best, rtol=1e-6)
            random = rows[rows["kind"] == "random"]
            assert not set(random[["mediator_layer", "mediator_feature"]].itertuples(index=False, name=None)) & set(
                scores
            )
            assert len(random) <= len(own)
        assert (table["kind"] == "random").mean() > 0.4

    def test_random_mediators_fire_as_often(self, circuit):
        table = candidate_mediators(circuit, self.far_edges(circuit), top=3)
        rate = circuit.nodes.set_index(["layer", "feature"])["frequency"]
        ends = [
            np.log(rate.loc[pd.MultiIndex.from_frame(rows[["mediator_layer", "mediator_feature"]])]).mean()
            for _, rows in table.groupby("kind")
        ]
        everyone = np.log(rate.loc[1:2])
        assert abs(ends[0] - ends[1]) < 0.35 * everyone.std()
        assert not table.duplicated([*ENDS, "mediator_layer", "mediator_feature"]).any()

    def responses(self, circuit, carried, seed=0):
        rng = np.random.default_rng(seed)
        plan = candidate_mediators(circuit, self.far_edges(circuit), top=3)
        rows = []
        for row in plan.to_dict("records"):
            delta = rng.normal(-2, 0.5, 30)
            share = carried if row["kind"] == "mediator" else 0.0
            held = delta * (1 - share) + rng.normal(0, 0.05, 30)
            rows.append(pd.DataFrame({**row, "cell": np.arange(30), "delta": delta, "delta_held": held}))
        return pd.concat(rows, ignore_index=True)

    def test_planted_mediation_is_recovered_with_its_share(self, circuit):
        effects = self.responses(circuit, 0.4)
        joint = (
            effects[effects["kind"] == "mediator"]
            .drop_duplicates([*ENDS, "cell"])
            .assign(kind="joint", mediator_layer=-1, mediator_feature=-1, delta_held=0.0)
        )
        result = mediation(pd.concat([effects, joint]), draws=100)
        assert result["mean_share_carried"].estimate == pytest.approx(0.4, abs=0.01)
        assert abs(result["mean_share_carried"].null) < 0.01
        assert result["share_carried"].p_value < 0.01
        assert result["joint_share_carried"].estimate == pytest.approx(1)
        own = result.table[result.table["kind"] == "mediator"]
        assert (own["q_value"] < 0.01).all()
        assert ((own["low"] < 0.4) & (own["high"] > 0.4)).mean() > 0.85

    def test_edges_without_a_response_have_no_share(self, circuit):
        """In other cells than those of the trace an edge may do nothing; the others answer as before."""
        effects = self.responses(circuit, 0.4)
        first = (effects[ENDS] == effects[ENDS].iloc[0]).all(axis=1)
        silent = effects.assign(**{c: effects[c].where(~first, 0.0) for c in ("delta", "delta_held")})
        result, rest = mediation(silent, draws=50), mediation(effects[~first], draws=50)
        assert result.estimate == pytest.approx(rest.estimate)
        assert result.headline.n == rest.headline.n
        held = effects.loc[first, ["mediator_layer", "mediator_feature"]].drop_duplicates()
        assert result.table["share"].isna().sum() == len(held)
        with pytest.raises(ScircuitError, match="no edge has a response"):
            mediation(effects.assign(delta=0.0, delta_held=0.0), draws=5)

    def test_mediators_that_carry_nothing_are_not_called(self, circuit):
        result = mediation(self.responses(circuit, 0.0), draws=50)
        own = result.table[result.table["kind"] == "mediator"]
        assert (own["q_value"] < 0.05).mean() <= 0.1
        assert result["mean_share_carried"].low < 0 < result["mean_share_carried"].high

    def test_refusals(self, circuit):
        effects = self.responses(circuit, 0.4)
        with pytest.raises(ScircuitError, match="lacks delta_held"):
            mediation(effects.drop(columns="delta_held"))
        with pytest.raises(ScircuitError, match="kind 'other'"):
            mediation(effects.assign(kind="other"))
        with pytest.raises(ScircuitError, match="candidate_mediators"):
            mediation(effects[effects["kind"] == "random"])


class TestInteractions:
    def tables(self, edit=None, n_sets=10, members=2, n_targets=25, n_cells=30, noise=0.0):
        """Independent responses of each member with unit mean and sd; `edit(set, subset, response)`
        changes sums."""
        rng = np.random.default_rng(0)
        rows = []
        for name in range(n_sets):
            single = rng.normal(1, 1, (members, n_targets, n_cells))
            for subset in range(1, 1 << members):
                response = sum(single[i] for i in range(members) if subset >> i & 1)
                response = response + noise * rng.standard_normal(response.shape) * (subset.bit_count() > 1)
                if edit is not None:
                    response = edit(name, subset, response)
                target, cell = np.indices(response.shape)
                rows.append(
                    pd.DataFrame(
                        {
                            "set_id": name,
                            "subset": subset,
                            "target_layer": 2,
                            "target_feature": target.ravel(),
                            "cell": cell.ravel(),
                            "delta": response.ravel(),
                        }
                    )
                )
        sets = pd.DataFrame(
            {
                "set_id": np.repeat(np.arange(n_sets), members),
                "member": np.tile(np.arange(members), n_sets),
                "layer": 0,
                "feature": 1,
                "n_cells": n_cells,
            }
        )
        return pd.concat(rows, ignore_index=True), sets

    def test_independent_effects_do_not_interact(self):
        result = interactions(*self.tables(members=3))
        for order in (2, 3):
            assert result[f"norm_ratio_{order}"].estimate == pytest.approx(1)
            assert result[f"mean_interaction_{order}"].estimate == pytest.approx(0, abs=1e-12)
        assert (result.table["interaction"] == 0).all()
        assert (result.table["effect"] == "additive").all()

    def test_the_published_ratio_of_d_calls_them_redundant(self):
        """|d_AB| / (|d_A| + |d_B|) is 1/sqrt(2) for the same independent effects."""
        effects, _ = self.tables(n_cells=400, n_sets=2)
        d = effects.groupby(["set_id", "target_feature", "subset"])["delta"].agg(lambda x: abs(x.mean() / x.std()))
        d = d.unstack()
        assert (d[3] / (d[1] + d[2])).median() == pytest.approx(np.sqrt(0.5), abs=0.02)

    def test_noise_in_the_pair_is_not_an_interaction(self):
        result = interactions(*self.tables(noise=0.3))
        assert (result.table["effect"] != "additive").mean() <= 0.05
        assert result["norm_ratio_2"].estimate == pytest.approx(1, abs=0.02)

    def test_redundancy_and_synergy_are_told_apart(self):
        halves = interactions(*self.tables(lambda s, subset, x: x / 2 if subset == 3 else x))
        assert halves["norm_ratio_2"].estimate == pytest.approx(0.5)
        assert (halves.table["effect"] == "redundant").mean() > 0.95
        doubles = interactions(*self.tables(lambda s, subset, x: 2 * x if subset == 3 else x))
        assert doubles["norm_ratio_2"].estimate == pytest.approx(2)
        assert (doubles.table["effect"] == "synergistic").mean() > 0.95

    def test_inclusion_and_exclusion_by_hand(self):
        """One cell, one target: D = 1, 2, 4 for the members, pairs 4, 4, 7, triple 10."""
        delta = {1: 1.0, 2: 2.0, 3: 4.0, 4: 4.0, 5: 4.0, 6: 7.0, 7: 10.0}
        effects = pd.DataFrame(
            {
                "set_id": 0,
                "subset": list(delta),
                "target_layer": 1,
                "target_feature": 0,
                "cell": 0,
                "delta": list(delta.values()),
            }
        )
        sets = pd.DataFrame({"set_id": 0, "member": range(3), "layer": 0, "feature": range(3), "n_cells": 1})
        table = interactions(effects, sets).table.set_index("subset")["interaction"]
        assert table.to_dict() == {3: 1.0, 5: -1.0, 6: 1.0, 7: 10 - 4 - 4 - 7 + 1 + 2 + 4}

    def test_a_subset_that_was_not_ablated_is_refused(self):
        effects, sets = self.tables()
        with pytest.raises(ScircuitError, match=r"1\.\.3"):
            interactions(effects[(effects["set_id"] != 4) | (effects["subset"] != 3)], sets)
        with pytest.raises(ScircuitError, match="not in interaction_sets"):
            interactions(effects, sets[sets["set_id"] != 4])
        with pytest.raises(ScircuitError, match="two members"):
            interactions(effects, sets[sets["member"] == 0])
        with pytest.raises(ScircuitError, match="lacks cell"):
            interactions(effects.drop(columns="cell"), sets)
