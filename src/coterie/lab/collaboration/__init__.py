"""How users help each other inside a variational autoencoder: distances, transfer, masking, drift,
collapse, and the report.
"""
