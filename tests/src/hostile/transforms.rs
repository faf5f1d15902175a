//! Hostile models whose forward is to do what is left of a rotation, behind checksums that are right.

use super::HostileFile;
use super::containers::container;
use rescomp_formats::manifest::Manifest;

pub(super) fn files() -> Vec<HostileFile> {
    let sound = container();
    let in_manifest = |name, attack, offset, change: &dyn Fn(&mut Manifest)| {
        HostileFile::with_manifest(name, attack, offset, &sound, change)
    };
    vec![
        in_manifest(
            "container/online-without-transform.rescomp",
            "a transform of a width that has none",
            64,
            &|manifest| {
                manifest.spec.intermediate = 46;
                manifest.spec.online.down = true;
            },
        ),
        in_manifest(
            "container/head-input-without-section.rescomp",
            "a matrix of the head's input that is not there",
            28,
            &|manifest| manifest.spec.online.head_input = true,
        ),
        in_manifest(
            "container/head-input-of-own-head.rescomp",
            "a matrix in front of a head that needs none",
            64,
            &|manifest| {
                manifest.spec.online.head_input = true;
                manifest.spec.tied_head = false;
            },
        ),
    ]
}
