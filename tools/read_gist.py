#!/usr/bin/env python3
"""Show a .gist file (docs/formats/gist.md): metadata, shapes and, with the xxhash package, its checksum.

Usage: read_gist.py FILE.gist    Needs the safetensors package; tried with safetensors 0.8.0, xxhash 4.1.0.
"""
import json
import struct
import sys

import safetensors

blob = open(sys.argv[1], "rb").read()
tensors = dict(safetensors.deserialize(blob))  # refuses what is no sound safetensors file
(header_bytes,) = struct.unpack_from("<Q", blob)
meta = json.loads(blob[8 : 8 + header_bytes])["__metadata__"]
if meta["format"] != "gist" or meta["version"] not in ("1", "2"):
    sys.exit(f"{sys.argv[1]}: not a .gist file of version 1 or 2")
for key in sorted(meta):
    print(f"{key:15} {meta[key]}")
parts = ("key", "key_scale", "value", "value_scale") if meta["dtype"] == "q8_0" else ("key", "value")
rows = [f"layers.{i}.{part}" for i in range(int(meta["layers"])) for part in parts]
rows += ["encoder_output"] * (meta["version"] == "2")
for name in rows:
    print(f"{name:22} {tensors[name]['dtype']} {tensors[name]['shape']}")
try:
    import xxhash
except ImportError:
    sys.exit("checksum not verified: the xxhash package is missing")
fields = [text.encode() for key in sorted(meta) if key != "checksum" for text in (key, meta[key])]
fields += [bytes(tensors[name]["data"]) for name in rows]
digest = xxhash.xxh3_128(b"".join(struct.pack("<Q", len(field)) + field for field in fields)).hexdigest()
if digest != meta["checksum"] or len(rows) != len(tensors):
    sys.exit(f"DAMAGED: the contents give {digest}, {len(tensors)} tensors")
print("checksum        verified")
