//! Paths of requests.

/// Gives the segments of a path without `//`, `.` and `..`, as Go's `path.Clean` leaves them: `..` takes away what is
/// before it, and nothing is above the root.
pub fn segments(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_nowhere_is_left_out() {
        assert_eq!(
            segments("/v1.51//networks/./a/../b/"),
            ["v1.51", "networks", "b"]
        );
        assert_eq!(segments("/../../a"), ["a"]);
        assert!(segments("/..").is_empty());
    }
}
