//! What people and programs get to see: tables, JSON, and values as text.

pub mod json;
pub mod table;
pub mod text;
