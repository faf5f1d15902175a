//! The bytes of a GGUF file: metadata, the tensors' directory, and the tensors, as `checkpoint/gguf` reads them.

use std::io::{self, Write};

/// Tensors begin at multiples of this: what readers take where the file says nothing.
const ALIGNMENT: usize = 32;

/// A file, in the order in which it is written.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) entries: Vec<(String, Value)>,
    pub(super) tensors: Vec<Tensor>,
}

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i32>),
}

/// A tensor.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// Slowest dimension first; the file has the fastest first.
    pub(super) shape: Vec<usize>,
    pub(super) kind: TensorType,
    pub(super) bytes: Vec<u8>,
}

/// Types of tensors that are written, with their codes in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TensorType {
    F32 = 0,
    Q4_0 = 2,
    Q8_0 = 8,
}

impl TensorType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Q4_0 => "Q4_0",
            Self::Q8_0 => "Q8_0",
        }
    }
}

impl File {
    pub(super) fn put(&mut self, key: &str, value: Value) {
        self.entries.push((key.to_owned(), value));
    }

    /// Everything in front of the tensors' bytes, padded.
    fn head(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            push_text(&mut bytes, key);
            push_value(&mut bytes, value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            push_text(&mut bytes, &tensor.name);
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&size| bytes.extend((size as u64).to_le_bytes()));
            bytes.extend((tensor.kind as u32).to_le_bytes());
            bytes.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    /// Writes the file.
    ///
    /// # Errors
    /// What the operating system said.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.head())?;
        for Tensor { bytes, .. } in &self.tensors {
            to.write_all(bytes)?;
            let padding = bytes.len().next_multiple_of(ALIGNMENT) - bytes.len();
            to.write_all(&[0; ALIGNMENT][..padding])?;
        }
        Ok(())
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn push_value(bytes: &mut Vec<u8>, value: &Value) {
    // The code of the type, then the value; of an array, the code and the number of its elements in between.
    let code = |bytes: &mut Vec<u8>, code: u32| bytes.extend(code.to_le_bytes());
    match value {
        Value::U32(number) => {
            code(bytes, 4);
            bytes.extend(number.to_le_bytes());
        }
        Value::F32(number) => {
            code(bytes, 6);
            bytes.extend(number.to_le_bytes());
        }
        Value::Bool(flag) => {
            code(bytes, 7);
            bytes.push((*flag).into());
        }
        Value::Text(text) => {
            code(bytes, 8);
            push_text(bytes, text);
        }
        Value::Texts(texts) => {
            code(bytes, 9);
            code(bytes, 8);
            bytes.extend((texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| push_text(bytes, text));
        }
        Value::Integers(numbers) => {
            code(bytes, 9);
            code(bytes, 5);
            bytes.extend((numbers.len() as u64).to_le_bytes());
            numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
    }
}
