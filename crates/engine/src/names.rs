//! Names for containers that were given none: an adjective and somebody who moved loads or minds.

const LEFT: &[&str] = &[
    "able", "agile", "amber", "ample", "ardent", "bold", "brave", "breezy", "bright", "brisk",
    "calm", "candid", "careful", "cheery", "civil", "clever", "cosmic", "crisp", "curious",
    "daring", "deft", "eager", "early", "earnest", "easy", "elegant", "fair", "fleet", "fluent",
    "fond", "frank", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble",
    "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mighty",
    "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "prompt",
    "proud", "quick", "quiet", "rapid", "ready", "serene", "sharp", "silent", "simple", "sincere",
    "smart", "snug", "sober", "solid", "steady", "stoic", "sturdy", "subtle", "sunny", "swift",
    "tidy", "tranquil", "trusty", "upbeat", "urbane", "vivid", "warm", "wise", "witty", "zealous",
    "zesty",
];

const RIGHT: &[&str] = &[
    "archimedes",
    "aryabhata",
    "babbage",
    "backus",
    "bell",
    "berners",
    "bohr",
    "boole",
    "bose",
    "brattain",
    "brunel",
    "cantor",
    "carson",
    "cerf",
    "chandrasekhar",
    "chebyshev",
    "clarke",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "edison",
    "einstein",
    "engelbart",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "franklin",
    "galileo",
    "gauss",
    "goldberg",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "hero",
    "hertz",
    "hilbert",
    "hodgkin",
    "hopper",
    "hypatia",
    "jacquard",
    "johnson",
    "joliot",
    "kahn",
    "kepler",
    "knuth",
    "kovalevskaya",
    "lamarr",
    "lamport",
    "leavitt",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "mclean",
    "meitner",
    "mendel",
    "mendeleev",
    "mirzakhani",
    "morse",
    "napier",
    "newton",
    "nobel",
    "noether",
    "otis",
    "pascal",
    "pasteur",
    "perlman",
    "planck",
    "poincare",
    "ptolemy",
    "raman",
    "ramanujan",
    "ritchie",
    "rosalind",
    "rubin",
    "rutherford",
    "shannon",
    "stallman",
    "swanson",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "villani",
    "volta",
    "watt",
    "wiles",
    "wozniak",
    "wright",
    "wu",
    "yalow",
    "zhukovsky",
];

/// Returns a name made from `random`; `attempt` above zero appends a digit, for when the plain ones are taken.
pub(crate) fn generate(random: u64, attempt: u32) -> String {
    let left = LEFT[(random % LEFT.len() as u64) as usize];
    let right = RIGHT[(random / LEFT.len() as u64 % RIGHT.len() as u64) as usize];
    match attempt {
        0..=5 => format!("{left}_{right}"),
        _ => format!("{left}_{right}{}", random >> 40 & 0xfff),
    }
}

/// Tells whether `name` is one for containers and volumes: two characters at least, the first a letter or digit.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_valid() {
        for random in [0, 1, u64::MAX, 88 * 97, 123_456_789_012_345] {
            for attempt in [0, 9] {
                assert!(is_valid(&generate(random, attempt)));
            }
        }
    }

    #[test]
    fn names_begin_with_a_letter_or_digit() {
        for (name, valid) in [
            ("a", false),
            ("ab", true),
            ("_ab", false),
            ("a.b-c_1", true),
            ("a/b", false),
            ("", false),
        ] {
            assert_eq!(is_valid(name), valid, "{name}");
        }
    }
}
