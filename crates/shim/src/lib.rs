//! Supervises one container
