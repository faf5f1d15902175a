//! Templates in the shapes of the families that devices run, written for these tests: what each becomes.

use super::derive::{Derived, derive};
use super::jinja::Jinja;
use super::source::Source;
use rescomp_formats::chat_template::{ChatTemplate, SystemTexts, Trimmed};

/// Llama 3.2: a header for the system message with the date, whether there is a message or not; tools are not given.
const LLAMA: &str = r#"{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_first_turn is defined %}{%- set tools_in_first_turn = true %}{%- endif %}
{%- if not day is defined %}
    {%- if strftime_now is defined %}
        {%- set day = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set day = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}{{- "Environment: ipython\n" }}{%- endif %}
{{- "Knowledge: 2023\nToday: " + day + "\n\n" }}
{{- system }}
{{- "<|eot_id|>" }}
{%- if tools_in_first_turn and not tools is none %}{{- raise_exception("no tools here") }}{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"#;

/// Mistral: brackets, the system message inside the last ones.
const MISTRAL: &str = r#"{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in rest %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system is defined %}
            {{- "[INST] " + system + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("another role") }}
    {%- endif %}
{%- endfor %}
"#;

/// Gemma 3: the system message in front of the first turn's, and another name for the assistant.
const GEMMA: &str = r#"{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for message in rest -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("roles must take turns") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("no such content") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"#;

/// Phi-3: a system message of its own; the text ends with the end token where no answer is asked for.
const PHI: &str = r#"{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}"#;

/// The first Phi-3: no system messages, answers open behind each message of the user.
const PHI_WITHOUT_SYSTEM: &str = r#"{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '
' + message['content'] + '<|end|>' + '
' + '<|assistant|>' + '
'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '
'}}{% endif %}{% endfor %}"#;

/// Qwen 3: thoughts of earlier answers are left out, and whether to think may be asked for.
const QWEN: &str = r#"{%- if tools %}{{- '<|im_start|>system\ntools\n' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thoughts = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}{{- raise_exception('no tools here') }}{%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"#;

/// SmolLM3: the date among lines of its own, and marks around what the assistant says.
const SMOL: &str = r###"{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
{%- set mode = "/think" if enable_thinking else "/no_think" -%}
{{- "<|im_start|>system\n" -}}
{%- set today = strftime_now("%d %B %Y") -%}
{{- "## Metadata\n\nToday Date: " ~ today ~ "\nReasoning Mode: " + mode + "\n\n## Custom Instructions\n\n" -}}
{%- if messages[0].role == "system" -%}{{- messages[0].content + "\n\n" -}}
{%- else -%}{{- "You are a helpful assistant.\n\n" -}}{%- endif -%}
{{- "<|im_end|>\n" -}}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>" + message.role + "\n" + content + "<|im_end|>\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {{ "<|im_start|>assistant\n" + content.lstrip("\n") + "<|im_end|>\n" }}
        {% endgeneration %}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|im_start|>assistant\n" }}{%- endif -%}"###;

/// Granite: the date in a default system message alone.
const GRANITE: &str = r#"{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = "Knowledge: April 2024.\nToday's Date: " + strftime_now('%B %d, %Y') + ".\nYou are kind." %}
    {%- set rest = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}
{%- for message in rest %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}"#;

fn derived(text: &str) -> Derived {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let owned = |(name, token): (&str, &str)| (name.to_owned(), token.to_owned());
    let source = Source {
        name: "template".to_owned(),
        text: text.to_owned(),
        special_tokens: tokens.map(owned).to_vec(),
    };
    derive(&Jinja::new(&source).unwrap()).unwrap()
}

const TRIMMED: Trimmed = Trimmed { system: true, user: true, answer: true };
const WHOLE: Trimmed = Trimmed { system: false, user: false, answer: false };

#[test]
fn llama_names_the_date() {
    let head =
        "<s><|start_header_id|>system<|end_header_id|>\n\nKnowledge: 2023\nToday: \u{1}%d %b %Y\u{1}\n\n";
    let user = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n";
    let answer = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
    let expected = ChatTemplate {
        system: Some(SystemTexts { before: head, after: user }),
        first: &format!("{head}{user}"),
        open: answer,
        answered: answer,
        next: user,
        trimmed: TRIMMED,
        drops_thoughts: false,
        drops_line_breaks: false,
        system_last: false,
        names_date: true,
    };
    let derived = derived(LLAMA);
    assert_eq!(derived.template(), expected);
    let section = expected.section().unwrap();
    assert_eq!(ChatTemplate::parse(&section), Ok(expected));
}

#[test]
fn mistral_moves_the_system_message_to_the_last_turn() {
    let expected = ChatTemplate {
        system: Some(SystemTexts { before: "", after: "\n\n" }),
        first: "<s>[INST] ",
        open: "[/INST]",
        answered: "[/INST] ",
        next: "</s>[INST] ",
        trimmed: Trimmed { answer: true, ..WHOLE },
        drops_thoughts: false,
        drops_line_breaks: false,
        system_last: true,
        names_date: false,
    };
    assert_eq!(derived(MISTRAL).template(), expected);
}

#[test]
fn gemma_puts_the_system_message_into_the_first_turn() {
    let derived = derived(GEMMA);
    let template = derived.template();
    assert_eq!(template.system, Some(SystemTexts { before: "<s><start_of_turn>user\n", after: "\n\n" }));
    assert_eq!(
        (template.first, template.open),
        ("<s><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n")
    );
    assert_eq!(template.trimmed, Trimmed { system: false, user: true, answer: true });
}

#[test]
fn phi_has_a_system_message_of_its_own_or_none() {
    let own = derived(PHI);
    let template = own.template();
    assert_eq!(template.system, Some(SystemTexts { before: "<|system|>\n", after: "<|end|>\n<|user|>\n" }));
    assert_eq!((template.first, template.open), ("<|user|>\n", "<|end|>\n<|assistant|>\n"));
    let without = derived(PHI_WITHOUT_SYSTEM);
    assert!(without.no_system.is_some());
    let template = without.template();
    assert_eq!((template.system, template.first), (None, "<s><|user|>\n"));
    assert_eq!(template.answered, "<|end|>\n<|assistant|>\n");
}

#[test]
fn qwen_drops_thoughts() {
    let derived = derived(QWEN);
    assert_eq!(derived.no_system, None);
    let template = derived.template();
    assert!(template.drops_thoughts && !template.names_date);
    assert_eq!(
        (template.first, template.open),
        ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
    );
}

#[test]
fn smollm_and_granite_name_the_date() {
    let smol = derived(SMOL);
    assert_eq!(smol.no_system, None);
    assert!(smol.template().drops_line_breaks && !smol.template().trimmed.answer);
    assert!(
        smol.template().names_date
            && smol.template().first.contains("Today Date: \u{1}%d %B %Y\u{1}\nReasoning Mode: /think")
    );
    let granite = derived(GRANITE);
    assert_eq!(granite.no_system, None);
    let template = granite.template();
    assert!(template.names_date && template.first.contains("Today's Date: \u{1}%B %d, %Y\u{1}."));
    assert_eq!(template.system.map(|texts| texts.before), Some("<|start_of_role|>system<|end_of_role|>"));
}
