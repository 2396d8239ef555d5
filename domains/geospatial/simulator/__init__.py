"""Landscapes seen from above, made up from published reflectances: fields, spectra, surfaces, atmosphere."""
