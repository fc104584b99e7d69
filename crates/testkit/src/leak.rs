//! x
/// y
pub fn settled(_p: &crate::engine::Places) -> Vec<String> { Vec::new() }
