"""Runs OpenAI's Python client against `rescomp serve`: models, completions, chats and embeddings, whole and streamed. Of an encoder's container,
embeddings alone.

    python3 tests/openai_client.py PROGRAM CONTAINER [EMULATOR ...]

EMULATOR is put before the program, such as `qemu-aarch64`. Needs `pip install openai`; where it is missing, this says so and ends with code 77.
"""

import subprocess
import sys

try:
    import openai
except ImportError:
    print("SKIPPED: NOTHING WAS TESTED: the package openai is not installed (pip install openai)", file=sys.stderr)
    sys.exit(77)


def start(program, container, emulator, *options):
    """A server on a port that the system chooses, and its address."""
    command = [*emulator, program, "serve", container, "--port", "0", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if " on http://" in line:
            return server, line.split(" on ")[1].strip()
    sys.exit(f"the server ended with code {server.wait()}")


def completions(client, model):
    options = {"model": model, "prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}
    try:
        whole = client.completions.create(**options)
    except openai.BadRequestError as error:
        assert error.code == "no_next_token", error
        print("completion: refused, as the container is an encoder's")
        return
    assert whole.object == "text_completion" and whole.usage.completion_tokens <= 24, whole
    assert whole.choices[0].finish_reason in ("stop", "length"), whole
    pieces = list(client.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.text for piece in pieces for choice in piece.choices) == whole.choices[0].text
    assert pieces[-1].usage.total_tokens == whole.usage.total_tokens
    seeded = {**options, "temperature": 1.0, "seed": 7}
    texts = {client.completions.create(**seeded).choices[0].text for _ in range(2)}
    assert len(texts) == 1, texts
    print(f"completion: {whole.choices[0].text!r}")


def chats(client, model):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
    options = {"model": model, "messages": messages, "max_completion_tokens": 24, "temperature": 0}
    try:
        whole = client.chat.completions.create(**options)
    except openai.BadRequestError as error:
        assert error.code in ("no_chat_template", "no_next_token"), error
        print(f"chat: refused: {error.code}")
        return
    answer = whole.choices[0].message.content
    pieces = list(client.chat.completions.create(**options, stream=True))
    assert pieces[0].choices[0].delta.role == "assistant", pieces[0]
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == answer
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Again, please."}]
    assert client.chat.completions.create(**options).usage.prompt_tokens > whole.usage.prompt_tokens
    print(f"chat: {answer!r}")


def embeddings(client, model):
    texts = ["a cat sat", "a dog sat", "a cat sat"]
    # The client asks for base64 where nobody says what.
    vectors = [one.embedding for one in client.embeddings.create(model=model, input=texts).data]
    assert vectors[0] == vectors[2] != vectors[1]
    assert all(abs(sum(number * number for number in vector) - 1) < 1e-4 for vector in vectors)
    floats = client.embeddings.create(model=model, input=texts[0], encoding_format="float")
    assert all(abs(a - b) < 1e-6 for a, b in zip(floats.data[0].embedding, vectors[0], strict=True))
    one = client.embeddings.create(model=model, input=[5, 6, 7])
    assert one.usage.prompt_tokens == one.usage.total_tokens == 3, one.usage
    several = client.embeddings.create(model=model, input=[[5, 6, 7], [8]])
    assert several.data[0].embedding == one.data[0].embedding and several.usage.total_tokens == 4
    assert [vector.index for vector in several.data] == [0, 1]
    print(f"embeddings: {len(vectors[0])} numbers")


def refusals(client, address, model):
    for wrong, kind in [
        ({"model": "another", "prompt": "a"}, openai.NotFoundError),
        ({"model": model, "prompt": "a", "n": 2}, openai.BadRequestError),
        ({"model": model, "prompt": "a", "temperature": -1}, openai.BadRequestError),
    ]:
        try:
            client.completions.create(**wrong)
        except kind as error:
            assert error.body["message"], error
        else:
            sys.exit(f"{wrong} was accepted")
    try:
        openai.OpenAI(base_url=address, api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError:
        pass
    else:
        sys.exit("a wrong key was accepted")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    program, container, *emulator = sys.argv[1:]
    server, address = start(program, container, emulator, "--api-key", "secret")
    try:
        client = openai.OpenAI(base_url=address, api_key="secret", max_retries=0, timeout=600)
        model = client.models.list().data[0].id
        assert client.models.retrieve(model).id == model
        completions(client, model)
        chats(client, model)
        embeddings(client, model)
        refusals(client, address, model)
    finally:
        server.terminate()
        server.wait()
    print(f"openai {openai.__version__}: all went well")


if __name__ == "__main__":
    main()
