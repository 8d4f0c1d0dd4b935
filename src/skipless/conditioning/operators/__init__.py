"""Jacobians as linear operators, given by their products with vectors; in closed form where one exists."""
