//! Scenario builders, the engine in a private directory, the reference engine
