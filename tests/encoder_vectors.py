"""Compares an encoder's full-precision vectors and tokens with those of transformers and tokenizers.

    cargo run --release -p conformance --example encoder_vectors -- DIR TEXT > vectors.jsonl
    python3 tests/encoder_vectors.py DIR vectors.jsonl

DIR is a sentence-transformers folder whose vectors are normalized means or first states; TEXT has a text a line. Needs torch and transformers; where
they are missing, this says so and ends with code 77. Ends with code 1 where tokens differ or one less a cosine is above 1e-5.
"""

import json
import pathlib
import sys

try:
    import tokenizers
    import torch
    import transformers
except ImportError as error:
    print(f"SKIPPED: NOTHING WAS COMPARED: {error}", file=sys.stderr)
    sys.exit(77)

MOST = 1e-5


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    lines = [json.loads(line) for line in open(sys.argv[2], encoding="utf-8")]
    pooling = folder / "1_Pooling/config.json"
    first_state = pooling.is_file() and json.loads(pooling.read_text()).get("pooling_mode_cls_token", False)
    settings = folder / "sentence_bert_config.json"
    longest = json.loads(settings.read_text())["max_seq_length"] if settings.is_file() else None
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # Special tokens in a text are text.
    tokenizer.encode_special_tokens = True
    if longest:
        tokenizer.enable_truncation(longest)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    distances, wrong = [], 0
    for line in lines:
        tokens = tokenizer.encode(line["text"]).ids
        wrong += tokens != line["tokens"]
        with torch.no_grad():
            states = model(torch.tensor([tokens])).last_hidden_state[0].double()
        expected = states[0] if first_state else states.mean(0)
        found = torch.tensor(line["embedding"], dtype=torch.float64)
        distances.append(1 - float(found @ expected / (found.norm() * expected.norm())))
    print(f"{len(lines)} texts, {wrong} with other tokens; 1 - cosine: mean {sum(distances) / len(distances):.3g}, "
          f"largest {max(distances):.3g}")
    sys.exit(int(wrong > 0 or max(distances) > MOST))


main()
