//! What tells one transform from another: part of what quantized blocks follow from.

use super::{LayerScales, Rotation, Transform};
use sha2::{Digest, Sha256};

impl Transform {
    /// SHA-256 of everything that it does to weights.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update([u8::from(self.online), u8::from(self.stream.is_some())]);
        self.stream.iter().for_each(|stream| add_rotation(&mut digest, stream));
        digest.update((self.heads.len() as u64).to_le_bytes());
        self.heads.iter().for_each(|heads| add_rotation(&mut digest, heads));
        digest.update((self.scales.len() as u64).to_le_bytes());
        for LayerScales { attention, values, mlp, down } in &self.scales {
            for scales in [attention, values, mlp, down] {
                digest.update((scales.len() as u64).to_le_bytes());
                scales.iter().for_each(|scale| digest.update(scale.to_le_bytes()));
            }
        }
        digest.finalize().into()
    }
}

fn add_rotation(digest: &mut Sha256, rotation: &Rotation) {
    digest.update((rotation.elems() as u64).to_le_bytes());
    match rotation {
        Rotation::Hadamard { signs, .. } => {
            digest.update([0]);
            signs.iter().for_each(|sign| digest.update([u8::from(*sign > 0.0)]));
        }
        Rotation::Dense(matrix) => {
            digest.update([1]);
            for row in 0..matrix.nrows() {
                (0..matrix.ncols()).for_each(|col| digest.update(matrix[(row, col)].to_le_bytes()));
            }
        }
        Rotation::Reflected { rotation, normal } => {
            digest.update([2]);
            normal.iter().for_each(|value| digest.update(value.to_le_bytes()));
            add_rotation(digest, rotation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_told() {
        let scaled = |down: f32| LayerScales { down: vec![down], ..LayerScales::default() };
        let transforms = [
            Transform::default(),
            Transform { online: true, ..Transform::default() },
            Transform { stream: Some(Rotation::random(12, 1)), ..Transform::default() },
            Transform { stream: Some(Rotation::random(12, 2)), ..Transform::default() },
            Transform { stream: Some(Rotation::random(6, 1)), ..Transform::default() },
            Transform { stream: Some(Rotation::random(6, 2)), ..Transform::default() },
            Transform { stream: Some(Rotation::random_keeping_mean(12, 1)), ..Transform::default() },
            Transform { stream: Some(Rotation::random_keeping_mean(12, 2)), ..Transform::default() },
            Transform { heads: vec![Rotation::random(12, 1)], ..Transform::default() },
            Transform { scales: vec![scaled(1.0)], ..Transform::default() },
            Transform { scales: vec![scaled(2.0)], ..Transform::default() },
            Transform {
                scales: vec![LayerScales { mlp: vec![2.0], ..LayerScales::default() }],
                ..Transform::default()
            },
        ];
        let digests: Vec<_> = transforms.iter().map(Transform::digest).collect();
        assert!((1..digests.len()).all(|at| !digests[..at].contains(&digests[at])));
        assert_eq!(
            digests[2],
            Transform { stream: Some(Rotation::random(12, 1)), ..Transform::default() }.digest()
        );
    }
}
