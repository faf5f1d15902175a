//! The record of the full-precision model costs the check less than 1e-4 nats, and the check measures what it says.
#![cfg(feature = "host")]

use conformance::host::{embedded_model, packed};
use rescomp_formats::container::{Container, Integrity};
use rescomp_quantizer::dense::DenseLogits;
use rescomp_runtime::eval::{argmax, log_sum_exp, measure};
use rescomp_runtime::linear::ActivationFormat;

#[test]
fn the_record_agrees_with_the_logits_it_was_made_from() {
    let checkpoint = embedded_model();
    let packed = packed(&checkpoint, "rtn", 4);
    let container = Container::open(&packed.file).unwrap().check(Integrity::Digest).unwrap();
    let machine = conformance::serial_machine();
    let windows = container.check_windows().unwrap();
    let sizes = windows.sizes();
    let tokens: Vec<Vec<u32>> = (0..sizes.windows)
        .map(|window| (0..=sizes.positions).map(|index| windows.token(window, index)).collect())
        .collect();
    let reference = DenseLogits::new(machine, &checkpoint, &tokens, sizes.positions, |_| ()).unwrap();

    let mut memory = conformance::memory(&container, sizes.positions, 1);
    let mut session =
        conformance::session(&container, machine, sizes.positions, 1, ActivationFormat::Int8, &mut memory);
    let measured = measure(&mut session, &windows, |_| ()).unwrap();

    let (mut coarse, mut full, mut nll, mut reference_nll, mut same) = (0.0, 0.0, 0.0, 0.0, 0);
    let vocabulary = checkpoint.spec.vocabulary as usize;
    for (window, tokens) in tokens.iter().enumerate() {
        session.reset();
        let all = reference.window(window);
        for position in 0..sizes.positions {
            let q = session.run(&tokens[position..=position]).unwrap();
            let p = &all[position * vocabulary..][..vocabulary];
            let (zp, zq) = (log_sum_exp(p), log_sum_exp(q));
            let log_p = |token: usize| f64::from(p[token]) - zp;
            let log_q = |token: usize| f64::from(q[token]) - zq;
            full +=
                (0..vocabulary).map(|token| log_p(token).exp() * (log_p(token) - log_q(token))).sum::<f64>();
            // The same classes as the record's, from the exact logits.
            let mut order: Vec<usize> = (0..vocabulary).collect();
            order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
            let (kept, rest) = order.split_at(sizes.classes);
            coarse +=
                kept.iter().map(|&token| log_p(token).exp() * (log_p(token) - log_q(token))).sum::<f64>();
            let mass = |log: &dyn Fn(usize) -> f64| rest.iter().map(|&token| log(token).exp()).sum::<f64>();
            let (p_rest, q_rest) = (mass(&log_p), mass(&log_q));
            coarse += p_rest * (p_rest / q_rest).ln();
            nll -= log_q(tokens[position + 1] as usize);
            reference_nll -= log_p(tokens[position + 1] as usize);
            same += u32::from(argmax(p) == argmax(q));
        }
    }
    let count = f64::from(measured.positions);
    let (coarse, full) = (coarse / count, full / count);
    println!(
        "KL {full:.6} over the vocabulary, {coarse:.6} over the classes, {:.6} from the record",
        measured.mean_kl
    );
    assert!((measured.mean_kl - coarse).abs() < 1e-4, "{} from the record, {coarse} exact", measured.mean_kl);
    assert!(coarse <= full + 1e-9, "joining classes never raises a divergence");
    assert!((measured.nll - nll / count).abs() < 1e-9);
    assert!((conformance::record(container.manifest()).reference_nll - reference_nll / count).abs() < 1e-9);
    assert_eq!(measured.same_top1, same);
    assert_eq!(conformance::record(container.manifest()).logits_sha256, measured.logits_sha256);
}
