//! Hadamard matrices that share nothing with the container format's: made as whole matrices, by their definitions.

type Rows = Vec<Vec<f64>>;

/// `(x H) / sqrt(n)`, with `H` the Kronecker product of Paley's matrix of the smallest order that fits and of Sylvester's.
///
/// # Panics
/// Where no order fits.
pub fn transformed(values: &[f64]) -> Vec<f64> {
    let n = values.len();
    let (order, dense) = dense_block(n);
    let run = n / order;
    let entry = |row: usize, col: usize| {
        // Sylvester: -1 to the number of bits that both numbers have.
        let sign = if ((row % run) & (col % run)).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        sign * dense[row / run][col / run]
    };
    let column =
        |col: usize| values.iter().enumerate().map(|(row, value)| value * entry(row, col)).sum::<f64>();
    (0..n).map(|col| column(col) / (n as f64).sqrt()).collect()
}

/// The order and the matrix.
fn dense_block(n: usize) -> (usize, Rows) {
    if n.is_power_of_two() {
        return (1, vec![vec![1.0]]);
    }
    let candidates = (1..=n / 4)
        .map(|quarter| 4 * quarter)
        .filter(|order| n.is_multiple_of(*order) && (n / order).is_power_of_two());
    for order in candidates {
        if is_prime(order - 1) && (order - 1) % 4 == 3 {
            // I + S, S skew.
            let s = bordered(order - 1, -1.0);
            return (order, combined(order, |row, col| s[row][col] + f64::from(u8::from(row == col))));
        }
        if is_prime(order / 2 - 1) && (order / 2 - 1) % 4 == 1 {
            let c = bordered(order / 2 - 1, 1.0);
            let on = [[1.0, -1.0], [-1.0, -1.0]];
            let off = [[1.0, 1.0], [1.0, -1.0]];
            return (
                order,
                combined(order, |row, col| match row / 2 == col / 2 {
                    true => on[row % 2][col % 2],
                    false => c[row / 2][col / 2] * off[row % 2][col % 2],
                }),
            );
        }
    }
    panic!("{n} has no order");
}

fn combined(order: usize, entry: impl Fn(usize, usize) -> f64) -> Rows {
    (0..order).map(|row| (0..order).map(|col| entry(row, col)).collect()).collect()
}

/// Jacobsthal's matrix of the prime q with a border: zeros on the diagonal, the first row ones, the first column `column`.
fn bordered(q: usize, column: f64) -> Rows {
    combined(q + 1, |row, col| match (row, col) {
        (0, 0) => 0.0,
        (0, _) => 1.0,
        (_, 0) => column,
        _ => character((row + q - col) % q, q),
    })
}

/// Euler's criterion: the (q - 1) / 2-th power.
fn character(number: usize, q: usize) -> f64 {
    let power = (0..(q - 1) / 2).fold(1, |power, _| power * number % q);
    if power == q - 1 { -1.0 } else { power as f64 }
}

fn is_prime(number: usize) -> bool {
    number > 1 && (2..number).all(|divisor| !number.is_multiple_of(divisor))
}
