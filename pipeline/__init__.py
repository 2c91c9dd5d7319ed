"""CASS-Pipeline: from raw medical images to the tables of the CASS paper, exactly and restartably."""
