"""The compression data as JSON lines, for `extract_kept.rs`: `python compression_data.py DATA_FOLDER
OUT_FOLDER`; needs pyarrow."""

import gzip
import json
import sys
from pathlib import Path

import pyarrow.parquet as parquet

data, out = map(Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
with (out / "qmsum.jsonl").open("w") as file:
    for row in parquet.read_table(data / "qmsum.parquet").to_pylist():
        queries = [
            {"query": query["query"], "spans": [[int(end) for end in span] for span in query["relevant_text_span"]]}
            for query in json.loads(row["specific_queries"])
        ]
        general = [{"query": query["query"], "answer": query["answer"]} for query in json.loads(row["general_queries"])]
        file.write(json.dumps({"transcript": row["transcript"], "queries": queries, "general": general}) + "\n")
for source, target in [("nq_oracle", "nq"), ("kv_75_keys", "kv")]:
    (out / f"{target}.jsonl").write_bytes(gzip.decompress((data / f"{source}.jsonl.gz").read_bytes()))
