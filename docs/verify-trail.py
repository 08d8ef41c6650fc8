#!/usr/bin/env python3
"""Checks a trail as docs/audit.md describes it: python3 verify-trail.py DIR [PUBLIC_KEY_BASE64]"""
import base64, hashlib, json, os, subprocess, sys, tempfile

def signed(key, text, signature):
    with tempfile.TemporaryDirectory() as d:
        for name, data in ("key", bytes.fromhex("302a300506032b6570032100") + base64.b64decode(key)), ("text", text), ("sig", base64.b64decode(signature)):
            open(os.path.join(d, name), "wb").write(data)
        return subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin", "-inkey", "key", "-in", "text", "-sigfile", "sig"], cwd=d, capture_output=True).returncode == 0

def text(*words): return "".join(str(w) + "\n" for w in words).encode()
def statement(kind, e, d): return text("moat.audit." + kind + ".v1", e["instance"], d["epoch"], d["lastSeq"], d["lastHash"], d["time"], d["key"])
def name(key): return hashlib.sha256(base64.b64decode(key)).hexdigest()[:32]
def fault(where, why): sys.exit(f"CHANGED {where}: {why}")

trail, key = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
seq, last, hashes = 0, "0" * 64, {}
for file in sorted(f for f in os.listdir(trail) if f.endswith(".jsonl")):
    data = open(os.path.join(trail, file), "rb").read()
    if not data.endswith(b"\n"): fault(file, "ends in the middle of a line")
    for n, line in enumerate(data[:-1].split(b"\n"), 1):
        where = f"{file}:{n}"
        try: e = json.loads(line); d = e["details"]
        except (ValueError, KeyError): fault(where, "is not an event")
        if seq == 0: seq, last = e["seq"] - 1, e["prev"]
        if (e["seq"], e["prev"]) != (seq + 1, last): fault(where, "does not follow the line before")
        if n == 1 and (e["action"] != "audit.segment" or int(file[:12]) != e["seq"] or (key or d.get("publicKey")) != d.get("publicKey")): fault(where, "does not begin this file")
        if n == 1: key = d.get("publicKey")
        if e["action"] == "audit.checkpoint" and ((d["lastSeq"], d["lastHash"], d["key"]) != (seq, last, name(key)) or not signed(key, statement("checkpoint", e, d), d["signature"])): fault(where, "is a false checkpoint")
        if e["action"] == "audit.key":
            if (d["lastSeq"], d["lastHash"]) != (seq, last) or not signed(key, text("moat.audit.key.v1", e["instance"], seq, last, d["publicKey"]), d["signature"]): fault(where, "is a false key")
            key = d["publicKey"]
        seq, last = e["seq"], hashlib.sha256(line).hexdigest()
        hashes[seq] = last
if key:
    head = json.load(open(os.path.join(trail, "HEAD")))
    if hashes.get(head["lastSeq"]) != head["lastHash"] or not signed(key, statement("head", head, head), head["signature"]): fault("HEAD", "is not the end of this trail")
print(f"clean, {len(hashes)} lines, number {seq}, {last}")
