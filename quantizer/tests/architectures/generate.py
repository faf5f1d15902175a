"""Writes small random checkpoints of every architecture, and the logits that transformers computes with them.

    python3 generate.py [NAME ...]        (with torch, transformers and safetensors installed; made with transformers 5.24)

Each folder holds config.json and model.safetensors (bfloat16), as `save_pretrained` writes them, and expected.safetensors: `tokens`
(int32, one window) and `logits` (float32, of the window's last positions). quantizer/tests/architectures.rs compares them with the
full-precision forward. Encoders have `states` (the last block's, of all positions) and `embedding` (what sentence-transformers would make of
them) instead of logits. Classifiers have preprocessor_config.json, `image` (uint8, height x width x 3, of the model's size) and `logits` of its
classes.
"""

import json
import pathlib
import shutil
import sys

import torch
import transformers as t
from safetensors.torch import save_file

VOCABULARY, POSITIONS, KEPT, CONTEXT, WINDOW = 288, 40, 16, 64, 7
SIZES = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, vocab_size=VOCABULARY, max_position_embeddings=CONTEXT,
             bos_token_id=0, eos_token_id=1, pad_token_id=None)
GROUPED = dict(SIZES, intermediate_size=48, num_key_value_heads=2)
GEMMA = dict(GROUPED, head_dim=16, sliding_window=WINDOW, query_pre_attn_scalar=24)
FULL, SLIDING = "full_attention", "sliding_attention"

MODELS = {
    "llama": t.LlamaConfig(**GROUPED, rope_parameters=dict(
        rope_type="llama3", rope_theta=1e4, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)),
    "llama-linear": t.LlamaConfig(**GROUPED, rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0)),
    "mistral": t.MistralConfig(**GROUPED, head_dim=12, sliding_window=WINDOW),
    "qwen2": t.Qwen2Config(**GROUPED),
    "qwen3": t.Qwen3Config(**GROUPED, head_dim=12, tie_word_embeddings=True),
    "phi3": t.Phi3Config(**GROUPED, sliding_window=WINDOW,
                         rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)),
    "gemma": t.GemmaConfig(**GROUPED, head_dim=16),
    "gemma2": t.Gemma2Config(**GEMMA, attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
                             layer_types=[SLIDING, FULL, SLIDING]),
    "gemma3": t.Gemma3TextConfig(**GEMMA, layer_types=[SLIDING, SLIDING, FULL], rope_parameters={
        FULL: dict(rope_type="linear", rope_theta=1e6, factor=8.0), SLIDING: dict(rope_type="default", rope_theta=1e4)}),
    "gpt-neox": t.GPTNeoXConfig(**SIZES, intermediate_size=64, tie_word_embeddings=False, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)),
    "gpt-neox-sequential": t.GPTNeoXConfig(**SIZES, intermediate_size=64, tie_word_embeddings=False, use_parallel_residual=False,
                                           hidden_act="gelu_new", rope_parameters=dict(
                                               rope_type="default", rope_theta=1e4, partial_rotary_factor=1.0)),
    "gpt2": t.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=CONTEXT, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1),
    "opt": t.OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32),
    "qwen2-yarn": t.Qwen2Config(**GROUPED, rope_parameters=dict(
        rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16)),
    "phi3-longrope": t.Phi3Config(**GROUPED, original_max_position_embeddings=48, rope_parameters=dict(
        rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.5, short_factor=[1.0, 1.5], long_factor=[2.0, 3.0],
        original_max_position_embeddings=48)),
    "smollm3": t.SmolLM3Config(**GROUPED, no_rope_layer_interval=2),
    "granite": t.GraniteConfig(**GROUPED, embedding_multiplier=12.0, attention_multiplier=0.1, residual_multiplier=0.22,
                               logits_scaling=7.0, tie_word_embeddings=True),
    "gpt2-by-layer": t.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=CONTEXT, vocab_size=VOCABULARY, bos_token_id=0,
                                  eos_token_id=1, scale_attn_by_inverse_layer_idx=True),
    "gemma3-images": t.Gemma3Config(
        text_config=t.Gemma3TextConfig(**GEMMA, layer_types=[SLIDING, SLIDING, FULL]).to_dict(), mm_tokens_per_image=4,
        image_token_index=280, vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                  image_size=28, patch_size=14)),
    "bert": t.BertConfig(**dict(SIZES, pad_token_id=0), intermediate_size=48),
    "roberta": t.RobertaConfig(**dict(SIZES, pad_token_id=1, max_position_embeddings=CONTEXT + 2), intermediate_size=48,
                               type_vocab_size=1, hidden_act="gelu_new"),
    "distilbert": t.DistilBertConfig(dim=32, n_layers=3, n_heads=4, hidden_dim=48, vocab_size=VOCABULARY,
                                     max_position_embeddings=CONTEXT, pad_token_id=0),
    "gpt-neo": t.GPTNeoConfig(hidden_size=32, num_layers=3, num_heads=4, vocab_size=VOCABULARY, max_position_embeddings=CONTEXT,
                              attention_types=[[["global", "local"], 1], [["global"], 1]], window_size=WINDOW, bos_token_id=0,
                              eos_token_id=1),
    "olmo": t.OlmoConfig(**GROUPED, tie_word_embeddings=True),
    "olmo2": t.Olmo2Config(**GROUPED),
    "stablelm": t.StableLmConfig(**GROUPED, use_qkv_bias=True, rope_parameters=dict(
        rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)),
    "stablelm-parallel": t.StableLmConfig(**GROUPED, use_parallel_residual=True),
}
IMAGE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, patch_size=8, num_labels=11)
LABELS = {id: name for id, name in enumerate(["tench, Tinca tinca", "goldfish", "caf\u00e9", "", "a \"quote\"", *"fghijk"])}
# The class of a classifier, its configuration, and what its processor does.
CLASSIFIERS = {
    "vit": (t.ViTForImageClassification, t.ViTConfig(**IMAGE, image_size=[32, 24], id2label=LABELS), dict(
        image_processor_type="ViTImageProcessor", do_resize=True, size=dict(height=32, width=24), resample=2, do_rescale=True,
        rescale_factor=1 / 255, do_normalize=True, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])),
    "deit": (t.DeiTForImageClassification, t.DeiTConfig(**IMAGE, image_size=32, hidden_act="gelu_new"), dict(
        image_processor_type="DeiTImageProcessor", size=40, crop_size=32, image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225])),
    "deit-with-teacher": (t.DeiTForImageClassificationWithTeacher, t.DeiTConfig(**IMAGE, image_size=32), dict(
        feature_extractor_type="DeiTFeatureExtractor", do_resize=True, size=36, resample=3, do_center_crop=True, crop_size=32,
        do_normalize=False)),
}
# The class of an encoder, and how its vectors are made: of a plain folder the mean.
ENCODERS = {
    "bert": (t.BertModel, dict(pooling_mode_cls_token=False, pooling_mode_mean_tokens=True), True),
    "roberta": (t.RobertaForMaskedLM, dict(pooling_mode_cls_token=True, pooling_mode_mean_tokens=False), False),
    "distilbert": (t.DistilBertModel, None, False),
}


def sentence_transformers(folder, pooling, normalized):
    """Writes what says how vectors are made."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * normalized
    modules = [dict(idx=index, name=str(index), path=path, type=f"sentence_transformers.models.{kind}")
               for index, (path, kind) in enumerate(kinds)]
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    (folder / "1_Pooling/config.json").write_text(json.dumps(dict(word_embedding_dimension=32, **pooling), indent=2) + "\n")


def expected_of_encoder(model, tokens, pooling, normalized):
    states = model(tokens, output_hidden_states=True).hidden_states[-1][0]
    embedding = states[0] if pooling and pooling["pooling_mode_cls_token"] else states.mean(0)
    if normalized:
        embedding = embedding / embedding.norm()
    return {"states": states.contiguous(), "embedding": embedding.clone()}


def randomize(model):
    """Random weights of about the size that keeps a stream's."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            random = torch.randn_like(parameter)
            if parameter.dim() > 1:
                parameter.copy_(random / (parameter.numel() / parameter.shape[0]) ** 0.5 * 1.5)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * random)
            else:
                parameter.copy_(1 + 0.3 * random)


def classifier(folder, number, kind, config, processor):
    torch.manual_seed(number)
    config._attn_implementation = "eager"
    model = kind(config).eval()
    randomize(model)
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    height, width = config.image_size if isinstance(config.image_size, (list, tuple)) else [config.image_size] * 2
    # Neighbours are alike, as in pictures.
    image = torch.rand(3, height // 4, width // 4).repeat_interleave(4, 1).repeat_interleave(4, 2).permute(1, 2, 0)
    image = (255 * (0.8 * image + 0.2 * torch.rand_like(image))).round().to(torch.uint8)
    pixels = image.float() * (1 / 255)
    if processor.get("do_normalize", True):
        pixels = (pixels - torch.tensor(processor["image_mean"])) / torch.tensor(processor["image_std"])
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(pixels.permute(2, 0, 1)[None]).logits[0].contiguous()
    save_file({"image": image.contiguous(), "logits": logits}, folder / "expected.safetensors")
    print(folder.name, sum(p.numel() for p in model.parameters()), float(logits.abs().max()))


def main():
    here = pathlib.Path(__file__).parent
    for number, (name, (kind, config, processor)) in enumerate(CLASSIFIERS.items()):
        if not sys.argv[1:] or name in sys.argv[1:]:
            classifier(here / name, 100 + number, kind, config, processor)
    for number, (name, config) in enumerate(MODELS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        kind, pooling, normalized = ENCODERS.get(name, (t.AutoModelForCausalLM, None, False))
        torch.manual_seed(number)
        config._attn_implementation = "eager"
        if name in ENCODERS:
            model = kind(config).eval()
        elif config.model_type == "gemma3":
            model = t.Gemma3ForConditionalGeneration._from_config(config).eval()
        else:
            model = kind.from_config(config).eval()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                random = torch.randn_like(parameter)
                if parameter.dim() > 1:
                    parameter.copy_(random / parameter.shape[-1] ** 0.5 * 1.5)
                elif parameter_name.endswith("bias") or name.startswith("gemma"):
                    parameter.copy_(0.3 * random)
                else:
                    parameter.copy_(1 + 0.3 * random)
        model = model.to(torch.bfloat16)
        folder = here / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        if pooling:
            sentence_transformers(folder, pooling, normalized)
        # Padding is no token of a text.
        tokens = torch.randint(2 if name in ENCODERS else 0, VOCABULARY, (1, POSITIONS))
        # Read again: what was made bfloat16 in memory has rotary frequencies of bfloat16, too.
        model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            if name in ENCODERS:
                expected = expected_of_encoder(model, tokens, pooling, normalized)
            else:
                expected = {"logits": model(tokens).logits[0, -KEPT:].contiguous()}
        save_file({"tokens": tokens[0].int(), **expected}, folder / "expected.safetensors")
        print(name, sum(p.numel() for p in model.parameters()), [float(values.abs().max()) for values in expected.values()])


main()
