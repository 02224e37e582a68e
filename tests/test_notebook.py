"""The road as a notebook walks it: public functions only, from an AnnData in memory to the report."""

import anndata as ad
import numpy as np
import pandas as pd

import scircuit


def test_from_an_anndata_to_a_report_by_public_functions(geneformer_folder, cells: ad.AnnData, tmp_path) -> None:
    model = scircuit.load_model(geneformer_folder, device="cpu")
    store = scircuit.tokenize(cells, model.tokenizer)
    train, held = store.subset(np.arange(24)), store.subset(np.arange(24, 40))
    layers = range(model.n_layers)

    def stream(epoch):
        order = np.random.default_rng(epoch).permutation(len(train))
        batches = train.batches(8, cells=order, by_length=False)
        return (rows for rows, _, _ in scircuit.gene_rows(model, batches, layers))

    settings = scircuit.SaeTraining(k=6, n_steps=60, batch_rows=64, buffer_rows=2000, expansion=2)
    saes = scircuit.train_saes(stream, model.d_model, layers, settings)
    metrics, sparsity = scircuit.measure_quality(model, saes, held.batches(8))
    scircuit.save_saes(
        tmp_path / "saes", saes, model=model.name, model_fingerprint=model.fingerprint, protocol=model.protocol,
        metrics=metrics, log_sparsity=sparsity,
    )  # fmt: skip
    saes = scircuit.load_saes(tmp_path / "saes", model_fingerprint=model.fingerprint)

    catalogue = scircuit.build_catalogue(model, train.batches(8), saes, min_firings=2)
    (tmp_path / "sets.gmt").write_text(
        "".join(f"set{i}\t\t" + "\t".join(f"GENE{g}" for g in range(5 * i, 5 * i + 12)) + "\n" for i in range(9))
    )
    found = scircuit.enrich(catalogue.features, scircuit.read_gmt(tmp_path / "sets.gmt"), catalogue.background)
    features = scircuit.label_features(catalogue.features, found.terms)

    chosen = scircuit.select_sources(features, "random", n=3, layers=[0, 1, 2]).table
    sources = {layer: part["feature"].tolist() for layer, part in chosen.groupby("layer")}
    # Sixteen cells are too few for a q below 0.05.
    settings = scircuit.TraceSettings(rule=scircuit.EdgeRule(max_q=None))
    folder = scircuit.trace(model, saes, held, sources, tmp_path / "trace", settings=settings)
    effects, tests = (pd.read_parquet(folder / f"{name}.parquet") for name in ("effects", "tests"))
    rule = scircuit.EdgeRule(min_nonzero=4, max_q=None)
    circuit = scircuit.build_circuit(effects, tests, features, found.terms, rule)
    assert len(circuit.edges) > 0
    circuit.write(tmp_path / "circuit")
    every = scircuit.Circuit.read(tmp_path / "circuit", grade="reproducible")
    assert len(every.edges) == len(circuit.edges)
    strict = scircuit.Circuit.read(tmp_path / "circuit")
    assert len(strict.edges) == len(circuit.at(circuit.provenance["grade"]).edges) == circuit.provenance["n_edges"]
    run = scircuit.Run(tmp_path)
    assert run.table("effects").equals(effects)
    assert len(run.circuit(grade="reproducible").edges) == len(every.edges)
    answers = run.ask()
    assert set(answers["question"]) == set(run.answers()["question"]) >= {"sign_balance", "effect_sizes"}
    page = scircuit.write_report(tmp_path / "report", [run])
    assert page.stat().st_size > 50_000
    assert "no config" not in repr(run)
