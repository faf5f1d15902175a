//! Writes GGUF files for tests: plainly, and with whatever a test wants to be wrong.

use std::path::Path;

/// Entries and tensors, in the order of the file.
#[derive(Clone, Default)]
pub(super) struct TestFile {
    pub(super) entries: Vec<(String, TestValue)>,
    pub(super) tensors: Vec<TestTensor>,
}

#[derive(Clone)]
pub(super) enum TestValue {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i32>),
    Floats(Vec<f32>),
}

#[derive(Clone)]
pub(super) struct TestTensor {
    pub(super) name: String,
    /// Slowest dimension first, as everywhere but in the file.
    pub(super) shape: Vec<usize>,
    /// The type's code in the file.
    pub(super) code: u32,
    pub(super) bytes: Vec<u8>,
}

impl From<&str> for TestValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for TestValue {
    fn from(number: u32) -> Self {
        Self::U32(number)
    }
}

impl From<f32> for TestValue {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}

impl From<bool> for TestValue {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn push_value(bytes: &mut Vec<u8>, value: &TestValue) {
    let code = |bytes: &mut Vec<u8>, code: u32| bytes.extend(code.to_le_bytes());
    match value {
        TestValue::U32(number) => {
            code(bytes, 4);
            bytes.extend(number.to_le_bytes());
        }
        TestValue::F32(number) => {
            code(bytes, 6);
            bytes.extend(number.to_le_bytes());
        }
        TestValue::Bool(flag) => {
            code(bytes, 7);
            bytes.push((*flag).into());
        }
        TestValue::Text(text) => {
            code(bytes, 8);
            push_text(bytes, text);
        }
        TestValue::Texts(texts) => {
            code(bytes, 9);
            code(bytes, 8);
            bytes.extend((texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| push_text(bytes, text));
        }
        TestValue::Integers(numbers) => {
            code(bytes, 9);
            code(bytes, 5);
            bytes.extend((numbers.len() as u64).to_le_bytes());
            numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
        TestValue::Floats(numbers) => {
            code(bytes, 9);
            code(bytes, 6);
            bytes.extend((numbers.len() as u64).to_le_bytes());
            numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
    }
}

impl TestFile {
    /// Sets an entry, in place of the one there is.
    pub(super) fn set(&mut self, key: &str, value: impl Into<TestValue>) -> &mut Self {
        let value = value.into();
        match self.entries.iter_mut().find(|(there, _)| there == key) {
            Some((_, there)) => *there = value,
            None => self.entries.push((key.to_owned(), value)),
        }
        self
    }

    pub(super) fn remove(&mut self, key: &str) -> &mut Self {
        self.entries.retain(|(there, _)| there != key);
        self
    }

    /// A tensor that the test knows to be there.
    pub(super) fn tensor(&mut self, name: &str) -> &mut TestTensor {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub(super) fn push_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) -> &mut Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.push(TestTensor { name: name.to_owned(), shape: shape.to_vec(), code: 0, bytes });
        self
    }

    /// The bytes of the file, its tensors aligned to 32 bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            push_text(&mut bytes, key);
            push_value(&mut bytes, value);
        }
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            push_text(&mut bytes, &tensor.name);
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&size| bytes.extend((size as u64).to_le_bytes()));
            bytes.extend(tensor.code.to_le_bytes());
            bytes.extend((data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
        bytes
    }

    pub(super) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}
