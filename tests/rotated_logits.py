"""How much of what a folded rotation changes in a model's logits is the fold, and how much is f32.

    python3 tests/rotated_logits.py MODEL.gguf [POSITIONS]

Computes a Llama's logits with numpy, apart from this project's code: in f64 and in f32, as the model is, and with its stream in random
orthogonal bases that are folded into f32 weights. Prints, over all positions and bases, the largest difference as a share of the largest logit of
its position. Needs numpy and gguf; where they are missing, this says so and ends with code 77. Ends with code 1 where the folded weights, computed
with in f64, are further than 1e-5 from the model's own.
"""

import sys

try:
    import gguf
    import gguf.quants
    import numpy as np
except ImportError as error:
    print(f"SKIPPED: NOTHING WAS COMPARED: {error}", file=sys.stderr)
    sys.exit(77)

MOST = 1e-5
BASES = 4


class Llama:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        field = lambda name: reader.fields["llama." + name].contents()
        self.weights = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.layers, self.heads = field("block_count"), field("attention.head_count")
        self.key_heads = field("attention.head_count_kv")
        self.epsilon, self.theta = field("attention.layer_norm_rms_epsilon"), field("rope.freq_base")
        self.weights.setdefault("output.weight", self.weights["token_embd.weight"])
        # The head reads the stream as it was: its rotation is undone in front of it.
        self.before_head = None

    def rotated(self, basis):
        """The same model with its stream in another basis: E R, W R of what reads it, R^T W of what writes it, in f64, then as f32."""
        other = object.__new__(Llama)
        other.__dict__.update(self.__dict__, before_head=basis.T)
        wide = {name: weights.astype(np.float64) for name, weights in self.weights.items()}
        wide["token_embd.weight"] = wide["token_embd.weight"] @ basis
        for layer in range(self.layers):
            block = f"blk.{layer}."
            for norm, readers in (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up"))):
                gain = wide[f"{block}{norm}.weight"]
                for reader in readers:
                    wide[f"{block}{reader}.weight"] = (wide[f"{block}{reader}.weight"] * gain) @ basis
                wide[f"{block}{norm}.weight"] = np.ones_like(gain)
            for writer in ("attn_output", "ffn_down"):
                wide[f"{block}{writer}.weight"] = basis.T @ wide[f"{block}{writer}.weight"]
        other.weights = {name: weights.astype(np.float32) for name, weights in wide.items()}
        return other

    def logits(self, tokens, kind):
        """positions x vocabulary, and the largest element of the stream at each position."""
        count = len(tokens)
        weight = lambda name: self.weights[name + ".weight"].astype(kind)
        width = self.weights["token_embd.weight"].shape[1] // self.heads
        angles = np.arange(count)[:, None] * self.theta ** -(np.arange(0, width, 2) / width)
        cos, sin = np.cos(angles).astype(kind)[:, None], np.sin(angles).astype(kind)[:, None]

        def turned(rows, heads):
            pairs = rows.reshape(count, heads, width // 2, 2)
            even, odd = pairs[..., 0], pairs[..., 1]
            return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(count, heads, width)

        norm = lambda rows: rows / np.sqrt((rows * rows).mean(-1, keepdims=True) + kind(self.epsilon))
        unseen = np.triu(np.full((count, count), -np.inf), 1).astype(kind)
        stream, largest = weight("token_embd")[tokens], np.zeros(count)
        for layer in range(self.layers):
            block = f"blk.{layer}."
            entered = norm(stream) * weight(block + "attn_norm")
            query = turned(entered @ weight(block + "attn_q").T, self.heads)
            key = turned(entered @ weight(block + "attn_k").T, self.key_heads)
            value = (entered @ weight(block + "attn_v").T).reshape(count, self.key_heads, width)
            key, value = (np.repeat(rows, self.heads // self.key_heads, 1) for rows in (key, value))
            scores = np.einsum("qhd,khd->hqk", query, key) / kind(np.sqrt(width)) + unseen
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            shares = shares / shares.sum(-1, keepdims=True)
            mixed = np.einsum("hqk,khd->qhd", shares, value).reshape(count, -1)
            stream = stream + mixed @ weight(block + "attn_output").T
            entered = norm(stream) * weight(block + "ffn_norm")
            gate, up = entered @ weight(block + "ffn_gate").T, entered @ weight(block + "ffn_up").T
            stream = stream + (gate / (1 + np.exp(-gate)) * up) @ weight(block + "ffn_down").T
            largest = np.maximum(largest, np.abs(stream).max(-1))
        last = norm(stream)
        if self.before_head is not None:
            last = last @ self.before_head.astype(kind)
        return (last * weight("output_norm")) @ weight("output").T, largest


def apart(found, expected):
    return np.abs(found - expected).max(-1) / np.abs(expected).max(-1)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    model = Llama(sys.argv[1])
    vocabulary, hidden = model.weights["token_embd.weight"].shape
    tokens = [(at * at * 7 + at * 3 + 1) % vocabulary for at in range(int((sys.argv + ["128"])[2]))]
    exact, largest = model.logits(tokens, np.float64)
    single, _ = model.logits(tokens, np.float32)
    rows = {"f32, as it is, from f64": [apart(single, exact)]}
    for seed in range(BASES):
        basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((hidden, hidden)))[0]
        rotated = model.rotated(basis)
        found = rotated.logits(tokens, np.float32)[0]
        rows.setdefault("f64, folded, from f64", []).append(apart(rotated.logits(tokens, np.float64)[0], exact))
        rows.setdefault("f32, folded, from f64", []).append(apart(found, exact))
        rows.setdefault("f32, folded, from f32", []).append(apart(found, single))
    worst = {name: np.max(rows[name], axis=0) for name in rows}
    for name, by_position in worst.items():
        at = int(by_position.argmax())
        rest = np.delete(by_position, at).max() if len(tokens) > 1 else 0.0
        print(f"{name}: {by_position[at]:.2e} at position {at} (stream up to {largest[at]:.0f}), {rest:.2e} at all others")
    sys.exit(int(worst["f64, folded, from f64"].max() > MOST))


main()
