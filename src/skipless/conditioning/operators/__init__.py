"""Jacobians as linear operators: known by their products, in closed form where there is one."""
