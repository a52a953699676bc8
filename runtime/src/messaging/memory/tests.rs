//! Behaviour of the embedded broker through the port.
